from lora_ext.study.page import write_tables_page


def test_page_has_a_table_per_data_set_and_ends_with_the_legend(make_results, tmp_path):
    page = write_tables_page(
        tmp_path / "page.md", "Title", make_results(), lambda name, _: f"table of {name}", ["rule"]
    )
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Title")
    assert text.count("table of ") == len({"brats", "prostatex"})
    assert text.index("table of brats") < text.index("## Legend") < text.index("- rule")
    assert "not comparable" in text


def test_page_without_a_finished_run_says_so(make_results, tmp_path):
    results = {**make_results(), "runs": []}
    page = write_tables_page(tmp_path / "page.md", "Title", results, lambda name, _: name, [])
    assert "No run has finished." in page.read_text(encoding="utf-8")
