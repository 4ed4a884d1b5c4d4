import json
import shutil

import pytest

from lora_ext.bundles import contents, generator


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """The folder of a generated bundle, below the working folder."""
    generator.write_bundles(tmp_path / "bundles")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "bundles" / "prostatex_lora16"


def own(folder):
    return contents.bundle_files(folder, contents.bundle_folder(folder), {}, {})


def test_bundle_is_found_by_folder_by_name_and_without_a_folder(bundle, tmp_path, monkeypatch):
    assert contents.bundle_folder(bundle) == bundle
    assert contents.bundle_folder("prostatex_lora16") == bundle
    monkeypatch.chdir(tmp_path / "bundles" / "brats_lora16")
    assert contents.bundle_folder("prostatex_lora16") is None
    with pytest.raises(ValueError, match=r"lora99: neither the folder of a bundle nor one of"):
        contents.bundle_folder("lora99")


def test_folder_and_name_give_the_same_files(bundle):
    by_folder = own(bundle)
    assert by_folder == contents.bundle_files("prostatex_lora16", None, {}, {})
    assert by_folder[0] == "prostatex_lora16"


def test_figures_beside_the_docs_travel_and_runs_do_not(bundle):
    (bundle / "docs" / "loss.png").write_bytes(b"picture")
    for path in ("eval/metrics.json", "models/last.pt", "models/notes.txt", ".git/config"):
        (bundle / path).parent.mkdir(exist_ok=True)
        (bundle / path).write_text("x", encoding="utf-8")
    _, files = own(bundle)
    assert files["docs/loss.png"] == b"picture"
    assert not any(path.startswith(("eval", "models", ".git")) for path in files)


def test_edited_bundle_is_taken_as_it_is(bundle):
    path = bundle / "configs" / "train.json"
    edited = json.loads(path.read_text(encoding="utf-8")) | {"epochs": 7}
    path.write_text(json.dumps(edited), encoding="utf-8")
    mine = shutil.copytree(bundle, bundle.with_name("mine"))
    name, files = own(mine)
    assert name == "mine"
    assert files["configs/train.json"] == json.dumps(edited).encode()
    with pytest.raises(ValueError, match=r"mine: its configs are not as.*got \['spacing'\]"):
        contents.bundle_files(mine, mine, {}, {"spacing": [1.0, 1.0, 1.0]})


def test_edited_bundle_whose_sizes_do_not_fit_its_weights_is_refused(bundle, weights):
    path = bundle / "configs" / "train.json"
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"sw_overlap": 0.25}),
        encoding="utf-8",
    )
    found = contents.weight_files(weights(("T2", "ADC"), 2), None)
    with pytest.raises(
        ValueError, match=r"but roi_size is \[128, 128, 48\] in train.json and .* with \[32, 32, 16"
    ):
        contents.bundle_files(bundle, bundle, found, {})


def test_weights_are_the_four_files_that_use_needs(weights):
    folder = weights()
    (folder / "events.out").write_bytes(b"log")
    names = {"models/model.pt", "models/network.json", "models/adapter.safetensors"}
    assert contents.weight_files(folder, None).keys() == names


def test_missing_weights_are_an_error_only_where_they_were_asked_for(bundle, tmp_path):
    assert contents.weight_files(None, bundle) == {}
    with pytest.raises(ValueError, match=r"no model.pt there; give the ckpt_dir"):
        contents.weight_files(tmp_path, bundle)


def test_package_travels_with_its_data_and_without_caches():
    files = contents.package_files()
    assert "lora_ext/bundles/source/base.json" in files
    assert "lora_ext/networks/unetr.py" in files
    assert not any("__pycache__" in path or path.endswith(".pyc") for path in files)


def test_requirements_are_those_of_the_package(root, bundle):
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    lines = (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert contents.requirements(metadata).decode().splitlines() == sorted(
        line for line in lines if "==" in line
    )
