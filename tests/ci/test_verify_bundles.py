"""The zoo's verification on small bundles, sound ones and broken ones."""

import json
import shutil

import pytest
import torch

from lora_ext.bundles import generator

SIZES = {
    "roi_size": [32, 32, 16], "feature_size": 4, "hidden_size": 24, "mlp_dim": 32,
    "num_layers": 4, "num_heads": 2, "decoder_hidden_size": 12, "decoder_mlp_dim": 16,
    "decoder_num_layers": 1, "decoder_num_heads": 2,
}  # fmt: skip
NAMES = ("files", "version", "metadata", "properties", "shapes", "torchscript")


@pytest.fixture(autouse=True)
def importable(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "ci"))


@pytest.fixture
def bundles(tmp_path):
    """A folder of all bundles at a small size."""
    for name in generator.all_facts():
        for path, text in generator.render_bundle(generator.facts_of(name, {"": SIZES})).items():
            file = tmp_path / "bundles" / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    return tmp_path / "bundles"


@pytest.fixture
def problems(bundles, tmp_path):
    """A function that prepares a bundle, damages the copy, and gives what checks find there."""
    from verification import prepare
    from verify_bundles import run_checks

    def find(name, damage=lambda folder: None, checks=NAMES):
        subject = prepare(bundles / name, tmp_path / "workplace")
        damage(subject.folder)
        return {r.check: r.problem for r in run_checks(subject, checks) if r.problem}

    return find


def change_metadata(change):
    """A damage: change the metadata, in place."""

    def damage(folder):
        path = folder / "configs" / "metadata.json"
        metadata = json.loads(path.read_text(encoding="utf-8"))
        change(metadata, metadata["network_data_format"])
        path.write_text(json.dumps(metadata), encoding="utf-8")

    return damage


def lose_a_key(folder):
    state = torch.load(folder / "models" / "model.pt", weights_only=True)
    state.pop(next(iter(state)))
    torch.save(state, folder / "models" / "model.pt")


@pytest.mark.parametrize("name", ["brats_lora16", "prostatex_frozen", "mae_pretrain"])
def test_generated_bundles_pass_and_their_folder_stays_as_it_was(bundles, problems, name):
    before = sorted(p for p in bundles.rglob("*"))
    assert problems(name) == {}
    assert sorted(p for p in bundles.rglob("*")) == before


@pytest.mark.parametrize(
    ("damage", "check", "sentence"),
    [
        (lambda f: (f / "LICENSE").unlink(), "files", "expected LICENSE in the bundle"),
        (
            change_metadata(lambda m, _: m.update(version="0.2.0")),
            "version",
            "expected version 0.2.0 in the changelog, got ['0.1.0']",
        ),
        (change_metadata(lambda m, _: m.pop("task")), "metadata", "'task' is a required property"),
        (
            change_metadata(lambda _, f: f["inputs"]["image"].update(num_channels=3)),
            "shapes",
            "the encoder takes (batch, 4, 32, 32, 16) images; got [1, 3, 32, 32, 16]",
        ),
        (
            change_metadata(lambda _, f: f["outputs"]["pred"].update(num_channels=2)),
            "shapes",
            "output channel number `3` doesn't match: `2`",
        ),
        (
            change_metadata(lambda _, f: f["outputs"]["pred"].update(spatial_shape=[32, 32, 32])),
            "torchscript",
            "an output of shape [1, 3, 32, 32, 32], got [1, 3, 32, 32, 16]",
        ),
        (lose_a_key, "torchscript", "Missing key(s)"),
    ],
)
def test_broken_bundle_fails_with_a_sentence(problems, damage, check, sentence):
    assert sentence in problems("brats_lora16", damage, [check])[check]


def test_train_workflow_without_a_required_property_fails(bundles, problems):
    path = bundles / "brats_lora16" / "configs" / "train.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["train"]["batches"] = config["train"].pop("dataset")
    path.write_text(json.dumps(config).replace("train#dataset", "train#batches"), encoding="utf-8")
    assert "train_dataset" in problems("brats_lora16", checks=["properties"])["properties"]


def test_bundle_that_cannot_be_prepared_is_one_failure(bundles, capsys):
    from verify_bundles import table, verify

    (bundles / "brats_lora16" / "configs" / "inference.json").unlink()
    (result,) = verify(bundles / "brats_lora16")
    assert "inference.json" in result.problem
    assert "brats_lora16 prepare: FAILED" in capsys.readouterr().out
    assert table([result]).count("not run") == len(NAMES)


def test_bundles_on_disk_must_be_those_of_the_generator(bundles):
    from verify_bundles import check_set

    assert len(check_set(bundles)) == 13
    shutil.copytree(bundles / "brats_lora16", bundles / "brats_lora8")
    shutil.rmtree(bundles / "brats_frozen")
    with pytest.raises(ValueError, match=r"none of \['brats_frozen'\].*them \['brats_lora8'\]"):
        check_set(bundles)


def test_command_says_every_check_and_exits_with_1_if_one_fails(bundles, capsys):
    from verify_bundles import main

    main(bundle="brats_lora16", root=str(bundles))
    said = capsys.readouterr().out
    assert [f"brats_lora16 {n}: ok" in said for n in NAMES] == [True] * len(NAMES)
    assert "1 bundles, 6 checks, 0 failed" in said
    (bundles / "mae_pretrain" / "LICENSE").unlink()
    with pytest.raises(SystemExit) as stop:
        main(bundle=("mae_pretrain",), root=str(bundles))
    assert stop.value.code == 1
    assert "mae_pretrain files: FAILED: ValueError: expected LICENSE" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"--bundle: expected some of .*, got \['other'\]"):
        main(bundle="other", root=str(bundles))


@pytest.mark.slow
def test_two_processes_verify_two_bundles(bundles, capfd):
    from verify_bundles import main

    main(bundle=("brats_lora16", "mae_pretrain"), root=str(bundles), processes=2)
    said = capfd.readouterr().out
    for name in ("brats_lora16", "mae_pretrain"):
        assert [f"{name} {n}: ok" in said for n in NAMES] == [True] * len(NAMES)
    assert "2 bundles, 12 checks, 0 failed" in said
