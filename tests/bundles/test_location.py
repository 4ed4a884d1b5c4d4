import pytest
from monai.bundle import ConfigWorkflow

from lora_ext.bundles import bundle_root, starting


def make_bundle(folder, name):
    configs = folder / name / "configs"
    configs.mkdir(parents=True)
    (configs / "metadata.json").write_text("{}", encoding="utf-8")
    (configs / "train.json").write_text(
        '{"imports": ["$import lora_ext"], '
        f'"bundle_root": "$lora_ext.bundles.bundle_root(\'{name}\')", "run": ["$@bundle_root"]}}',
        encoding="utf-8",
    )
    return folder / name


def test_running_workflow_tells_where_its_bundle_lies(tmp_path, monkeypatch):
    bundle = make_bundle(tmp_path / "elsewhere", "mine")
    make_bundle(tmp_path / "bundles", "mine")  # of the same name, in the working folder
    monkeypatch.chdir(tmp_path)
    workflow = ConfigWorkflow(str(bundle / "configs" / "train.json"), logging_file=False)
    workflow.initialize()
    assert workflow.run() == [str(bundle)]


def test_relative_config_file_gives_an_absolute_root(tmp_path, monkeypatch):
    bundle = make_bundle(tmp_path / "bundles", "mine")
    monkeypatch.chdir(tmp_path)
    workflow = ConfigWorkflow("bundles/mine/configs/train.json", logging_file=False)
    workflow.initialize()
    assert workflow.run() == [str(bundle)]


def test_without_a_workflow_the_working_folder_is_searched(tmp_path, monkeypatch):
    bundle = make_bundle(tmp_path / "bundles", "mine")
    monkeypatch.chdir(tmp_path)
    assert bundle_root("mine") == str(bundle)
    monkeypatch.chdir(bundle)
    assert bundle_root("mine") == str(bundle)


def test_unknown_bundle_asks_for_bundle_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"'mine' is in none of.*give --bundle_root"):
        bundle_root("mine")


def test_packaged_bundle_is_where_its_package_lies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(starting, "PACKAGED_IN", make_bundle(tmp_path / "elsewhere", "mine"))
    assert bundle_root("mine") == str(tmp_path / "elsewhere" / "mine")
