import pytest

from lora_ext.files import whole_file


def test_file_appears_whole_and_its_folder_is_made(tmp_path):
    target = tmp_path / "new" / "file.txt"
    with whole_file(target) as draft:
        draft.write_text("all of it", encoding="utf-8")
        assert not target.exists()
        assert draft.suffixes == target.suffixes
    assert target.read_text(encoding="utf-8") == "all of it"
    assert [p.name for p in target.parent.iterdir()] == ["file.txt"]


def fail_half_way(target):
    with whole_file(target) as draft:
        draft.write_text("half", encoding="utf-8")
        raise OSError("disk full")


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("old", encoding="utf-8")
    with pytest.raises(OSError, match="disk full"):
        fail_half_way(target)
    assert target.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
