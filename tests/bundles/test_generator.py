"""Pure data: no torch, no MONAI."""

import json
import shutil
from pathlib import Path

import pytest

from lora_ext.bundles import generator

SEGMENTATION = {
    f"{dataset}_{regime}"
    for dataset in ("brats", "prostatex")
    for regime in ("baseline", "finetune", "frozen", "lora16", "lora32", "lora64")
}
NAMES = SEGMENTATION | {"mae_pretrain"}
FILES = {
    "LICENSE",
    "configs/evaluate.json",
    "configs/inference.json",
    "configs/logging.conf",
    "configs/metadata.json",
    "configs/multi_gpu_sharded.json",
    "configs/multi_gpu_train.json",
    "configs/train.json",
    "docs/README.md",
    "docs/data_license.txt",
}


def config(root, name, file):
    return json.loads((root / "bundles" / name / "configs" / file).read_text(encoding="utf-8"))


def test_committed_bundles_are_exactly_the_thirteen_and_their_files(root):
    found = {p.parent.parent.name for p in root.glob("bundles/*/configs/metadata.json")}
    assert found == NAMES
    for name in NAMES:
        folder = root / "bundles" / name
        made = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
        assert {p.as_posix() for p in made if p.parts[0] not in ("models", "eval")} == FILES


def test_committed_bundles_agree_with_their_source(root):
    assert generator.check_bundles(root / "bundles") == []


def test_writing_twice_gives_the_same_files_and_a_clean_check(tmp_path):
    generator.write_bundles(tmp_path)
    first = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    generator.write_bundles(tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == first
    assert generator.check_bundles(tmp_path) == []
    assert len(first) == len(NAMES) * len(FILES)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda f: (f / "configs/train.json").write_text("{}", encoding="utf-8"),
            "train.json: differs",
        ),
        (lambda f: (f / "LICENSE").unlink(), "LICENSE: missing"),
        (
            lambda f: (f / "configs/extra.json").write_text("{}", encoding="utf-8"),
            "extra.json: not made",
        ),
        (lambda f: shutil.copytree(f, f.with_name("brats_lora8")), "brats_lora8/LICENSE: not made"),
    ],
)
def test_check_names_every_difference_and_writing_mends_it(tmp_path, damage, sentence):
    generator.write_bundles(tmp_path)
    damage(tmp_path / "brats_lora16")
    assert any(sentence in problem for problem in generator.check_bundles(tmp_path))
    generator.write_bundles(tmp_path)
    assert generator.check_bundles(tmp_path) == []


def test_what_a_run_left_in_a_bundle_is_neither_a_difference_nor_removed(tmp_path):
    generator.write_bundles(tmp_path)
    model = tmp_path / "brats_lora16" / "models" / "model.pt"
    model.parent.mkdir()
    model.write_bytes(b"weights")
    assert generator.check_bundles(tmp_path) == []
    generator.write_bundles(tmp_path)
    assert model.exists()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"epoch": 3}, "unknown key 'epoch'"),
        ({"epochs": "3"}, "'epochs' is a str; the base has a int"),
        ({"spacing": 1.0}, "'spacing' is a float; the base has a list"),
        ({"amp": 1}, "'amp' is a int; the base has a bool"),
    ],
)
def test_layer_may_only_replace_what_the_base_has_by_the_same_type(layer, message):
    base = json.loads((generator.SOURCE / "base.json").read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match=message):
        generator.check_layer(base, layer, "layer.json")


def test_unknown_fact_in_a_template_is_named():
    with pytest.raises(ValueError, match="unknown fact 'nothing'"):
        generator._fill({"a": "${nothing}"}, {"some": 1}, Path("train.json"))


def test_shared_transforms_are_the_same_in_training_evaluation_and_inference(root):
    train = config(root, "brats_lora32", "train.json")["train"]["deterministic_transforms"]
    evaluate = config(root, "brats_lora32", "evaluate.json")["validate#image_transforms"]
    infer = config(root, "brats_lora32", "inference.json")["preprocessing"]["transforms"]
    steps = [t["_target_"] for t in train]
    assert [t["_target_"] for t in evaluate if t["_target_"] != "CopyItemsd"] == steps
    assert [t["_target_"] for t in infer] == steps
    image_only = [dict(t, keys="image") for t in train]
    image_only[steps.index("Spacingd")]["mode"] = "bilinear"
    assert infer == image_only


def test_pinned_versions_are_those_of_requirements(root):
    lines = (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    metadata = config(root, "brats_lora32", "metadata.json")
    stated = metadata["required_packages_version"] | {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
    }
    assert stated == pins


def test_version_is_the_packages_and_in_the_changelogs(root):
    import lora_ext

    metadata = config(root, "prostatex_frozen", "metadata.json")
    assert metadata["version"] == lora_ext.__version__
    assert lora_ext.__version__ in metadata["changelog"]
    assert f"## {lora_ext.__version__}" in (root / "CHANGELOG.md").read_text(encoding="utf-8")


def test_encoder_of_pretraining_has_the_sizes_of_the_segmentation_networks(root):
    ours, theirs = (config(root, name, "train.json") for name in ("mae_pretrain", "brats_lora32"))
    theirs |= theirs["encoder_sizes"]["default"]
    for key in ("roi_size", "hidden_size", "mlp_dim", "num_layers", "num_heads"):
        assert theirs[key] in (ours[key], None), key  # null is the network's own, see test_settings


@pytest.mark.parametrize("name", sorted(NAMES))
def test_metadata_fits_the_zoos_schema(root, name):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(
        (root / "tests" / "bundles" / "meta_schema.json").read_text(encoding="utf-8")
    )
    metadata = config(root, name, "metadata.json")
    jsonschema.validate(metadata, schema)
    shape = metadata["network_data_format"]["inputs"]["image"]
    assert shape["num_channels"] == len(shape["channel_def"])
    assert metadata["name"] == name


def test_texts_hold_no_unfilled_fact_and_no_machine_path(root):
    for path in (root / "bundles").rglob("*"):
        generated = path.suffix in (".json", ".md", ".txt", ".conf")
        if generated and not {"models", "eval"} & set(path.parts):
            text = path.read_text(encoding="utf-8")
            assert "${" not in text, path
            assert "/work" not in text, path
            assert "/home" not in text, path


def test_text_fact_is_filled_with_the_facts_of_its_own_bundle():
    base = generator.facts_of("brats_lora16")
    other = generator.facts_of("brats_lora16", {"mine": {"lora_rank": 8, "modalities": ["T2"]}})
    assert "rank 16" in base["regime_title"]
    assert "rank 8" in other["regime_title"]
    assert other["image_classes"].startswith("T2 at 1x1x1 mm")


def test_later_layer_is_checked_as_the_sources_own_are():
    with pytest.raises(ValueError, match="mine: unknown key 'rank'"):
        generator.facts_of("brats_lora16", {"mine": {"rank": 8}})


def test_what_was_measured_is_of_known_bundles_and_reaches_metadata_and_docs(root):
    measured = json.loads((generator.SOURCE / "measured.json").read_text(encoding="utf-8"))
    assert measured.keys() <= NAMES
    for name, layer in measured.items():
        assert layer.keys() <= {"eval_metrics", "performance", "memory"}
        text = (root / "bundles" / name / "docs" / "README.md").read_text(encoding="utf-8")
        metrics = layer.get("eval_metrics", {})
        assert config(root, name, "metadata.json")["eval_metrics"] == metrics
        assert all(f"| {metric} | {value} |" in text for metric, value in metrics.items())
        assert layer.get("memory", "") in text
