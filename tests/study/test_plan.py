"""Rows, seeds, folds, settings and encoders of a study, and where its data lie."""

import json
from dataclasses import replace

import pytest
from monai.networks.nets import ViT

from lora_ext.study.plan import (
    BUNDLES,
    Run,
    check_pretrained,
    check_settings,
    fill_pretrained,
    find_bundles,
    find_tasks,
    known_settings,
    plan_runs,
)
from lora_ext.weights import save_encoder

RUN = Run("brats_lora32", "brats", "lora32", False, "brats_lora32", 0, 0, "data", {})


@pytest.fixture
def data(tmp_path):
    """A folder with both task folders, as far as a plan looks at them."""
    for name in ("phantom_brats", "Task05_Prostate"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dataset.json").write_text("{}", encoding="utf-8")
    return str(tmp_path)


def test_default_is_every_bundle_once(data):
    runs = plan_runs(data)
    assert tuple(run.row for run in runs) == BUNDLES
    assert len(runs) == 12
    assert {(run.seed, run.fold, run.reference) for run in runs} == {(0, 0, False)}


def test_default_bundles_are_those_whose_data_are_there(data, tmp_path):
    (tmp_path / "Task05_Prostate" / "dataset.json").unlink()
    assert {run.dataset for run in plan_runs(data)} == {"brats"}


def test_every_row_runs_every_seed_and_fold_seed_by_seed(data):
    runs = plan_runs(data, ("brats_frozen", "brats_lora32"), (0, 2), "0,1")
    assert [(run.seed, run.fold, run.row) for run in runs] == [
        (seed, fold, row)
        for seed in (0, 2)
        for fold in (0, 1)
        for row in ("brats_frozen", "brats_lora32")
    ]
    assert len({run.folder for run in runs}) == 8


def test_references_run_once_per_data_set(data):
    bundles = "brats_frozen,brats_lora32,prostatex_lora16"
    runs = [r for r in plan_runs(data, bundles, reference=("segresnet", "unetr")) if r.reference]
    assert [(r.row, r.dataset, r.regime, r.bundle) for r in runs] == [
        ("brats_segresnet", "brats", "segresnet", "brats_frozen"),
        ("brats_unetr", "brats", "unetr", "brats_frozen"),
        ("prostatex_segresnet", "prostatex", "segresnet", "prostatex_lora16"),
        ("prostatex_unetr", "prostatex", "unetr", "prostatex_lora16"),
    ]


def test_a_pretrained_encoder_goes_only_to_rows_that_start_from_one(data):
    bundles = "brats_baseline,brats_finetune,brats_lora16"
    runs = plan_runs(data, bundles, reference="unetr", knobs={"pretrained": "vit.pt", "epochs": 3})
    assert {run.knobs.get("pretrained") for run in runs} == {None, "vit.pt"}
    assert {run.row: "pretrained" in run.knobs for run in runs} == {
        "brats_baseline": False,
        "brats_finetune": True,
        "brats_lora16": True,
        "brats_unetr": False,
    }
    assert all(run.knobs["epochs"] == 3 for run in runs)


def test_a_pattern_gives_every_run_its_own_encoder(data):
    pattern = "pre/{dataset}_seed{seed}_fold{fold}.pt"
    bundles = "brats_frozen,prostatex_frozen"
    runs = plan_runs(data, bundles, (0, 1), (0, 3), knobs={"pretrained": pattern})
    assert [run.knobs["pretrained"] for run in runs] == [
        f"pre/{run.dataset}_seed{run.seed}_fold{run.fold}.pt" for run in runs
    ]
    assert len({run.knobs["pretrained"] for run in runs}) == 8


def test_settings_are_kept_as_json_holds_them():
    assert check_settings({"roi_size": (32, 32, 16), "amp": False, "pretrained": None}) == {
        "roi_size": [32, 32, 16],
        "amp": False,
        "pretrained": None,
    }


def test_settings_are_values_and_not_wiring(root):
    config = json.loads(
        (root / "bundles/brats_lora32/configs/train.json").read_text(encoding="utf-8")
    )
    knobs = known_settings()
    assert set(knobs) <= set(config)
    assert {"device", "epochs", "learning_rate", "roi_size", "modalities", "amp"} <= set(knobs)
    assert {"pretrained", "training_cases", "lora_scaling", "lora_targets"} <= set(knobs)
    assert not {"network_def", "train", "imports", "cases", "mixed_precision"} & set(knobs)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"bundles": "brats_lora8"},
            "unknown bundle 'brats_lora8'; expected one of brats_baseline, ",
        ),
        ({"reference": "swin"}, "unknown reference network 'swin'; expected one of segresnet, "),
        ({"knobs": {"epoch": 3}}, "unknown setting --epoch; expected one of device, "),
        ({"knobs": {"network_def": 3}}, "unknown setting --network_def; expected one of "),
        ({"knobs": {"regime": "lora"}}, "unknown setting --regime; expected one of "),
        ({"knobs": {"seed": 1}}, "unknown setting --seed; .* --seeds"),
        ({"seeds": "one"}, "seeds: expected whole numbers such as 0,1,2, got 'one'"),
        ({"seeds": ""}, "seeds: expected whole numbers such as 0,1,2, got ''"),
        ({"knobs": {"lora_rank": 8}}, "unknown setting --lora_rank; expected one of "),
        (
            {"knobs": {"pretrained": "{row}.pt"}},
            r"--pretrained: expected only \{dataset\}, .* got '\{row\}.pt'",
        ),
        ({"folds": 5}, "folds: expected 0 to 4, got 5"),
        ({"folds": 2, "knobs": {"num_folds": 2}}, "folds: expected 0 to 1, got 2"),
    ],
)
def test_bad_requests_are_one_sentence(data, arguments, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        plan_runs(data, **arguments)
    assert "\n" not in str(caught.value)


def test_only_data_set_seed_and_fold_are_filled_in():
    place = {"dataset": "brats", "seed": 2, "fold": 1}
    assert fill_pretrained("a/{dataset}_{seed}_{fold}.pt", **place) == "a/brats_2_1.pt"
    assert fill_pretrained("vit.pt", **place) == "vit.pt"
    assert [fill_pretrained(word, **place) for word in ("none", "None")] == ["none", "none"]
    for bad in ("{row}.pt", "{}.pt", "{fold:02d}.pt", "{seed!r}.pt", "{fold.real}.pt", "{fold.pt"):
        with pytest.raises(ValueError, match=r"expected only \{dataset\}, \{seed\} or \{fold\}"):
            fill_pretrained(bad, **place)


def test_an_encoder_that_is_given_must_be_there_and_none_need_be_given(tmp_path):
    there = tmp_path / "vit.pt"
    there.touch()
    for knobs in ({}, {"pretrained": "none"}, {"pretrained": str(there)}):
        check_pretrained([replace(RUN, knobs=knobs)])
    words = "expected an encoder for brats_lora32 seed 0 fold 0, found no file"
    with pytest.raises(ValueError, match=words) as caught:
        check_pretrained([replace(RUN, knobs={"pretrained": str(tmp_path)})])
    assert "\n" not in str(caught.value)


def test_the_split_s_seed_is_a_setting_and_seeds_leave_it_alone(data):
    runs = plan_runs(data, "brats_frozen", (0, 1), knobs={"split_seed": 3})
    assert [(run.seed, run.knobs) for run in runs] == [(s, {"split_seed": 3}) for s in (0, 1)]
    assert "split_seed" not in plan_runs(data, "brats_frozen", (0, 1))[1].knobs


def make_task(folder, channels=("FLAIR", "t1gd")):
    folder.mkdir(parents=True)
    content = {
        "modality": {str(i): name for i, name in enumerate(channels)},
        "labels": {"0": "background"},
        "training": [],
    }
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", ["Task01_BrainTumour", "phantom_brats", "brats"])
def test_task_folders_are_found_by_name(tmp_path, name):
    task = make_task(tmp_path / name)
    assert find_tasks(tmp_path, []) == {"brats": task}
    assert find_tasks(tmp_path, ["brats"]) == {"brats": task}


def test_real_data_come_before_phantoms(tmp_path):
    make_task(tmp_path / "phantom_brats")
    real = make_task(tmp_path / "Task01_BrainTumour")
    assert find_tasks(tmp_path, [])["brats"] == real


def test_a_missing_data_set_is_named_with_what_was_looked_for(tmp_path):
    make_task(tmp_path / "brats")
    with pytest.raises(ValueError, match="Task05_Prostate, phantom_prostatex, prostatex") as caught:
        find_tasks(tmp_path, ["brats", "prostatex"])
    assert "Task01" not in str(caught.value)


def test_an_empty_folder_and_no_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Task01_BrainTumour.*Task05_Prostate"):
        find_tasks(tmp_path, [])
    with pytest.raises(ValueError, match="expected an existing folder"):
        find_tasks(tmp_path / "none", [])


def test_one_task_folder_is_known_by_its_channels(tmp_path):
    brain = make_task(tmp_path / "a", ["t1gd", "flair"])
    prostate = make_task(tmp_path / "b", ["ADC", "T2"])
    assert find_tasks(brain, []) == {"brats": brain}
    assert find_tasks(prostate, []) == {"prostatex": prostate}


def test_one_task_folder_of_unknown_channels_needs_named_bundles(tmp_path):
    task = make_task(tmp_path / "ct", ["CT", "PET"])
    with pytest.raises(ValueError, match=r"channels ct, pet of .* do not tell"):
        find_tasks(task, [])
    assert find_tasks(task, ["brats"]) == {"brats": task}


def test_one_task_folder_does_not_serve_two_data_sets(tmp_path):
    task = make_task(tmp_path / "a")
    with pytest.raises(ValueError, match="brats and prostatex"):
        find_tasks(task, ["brats", "prostatex"])


def test_bundles_are_taken_from_here_and_made_where_there_are_none(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    assert str(find_bundles(["brats_lora32"], tmp_path)) == "bundles"
    assert not list(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    made = find_bundles(["brats_lora32"], tmp_path / "out")
    assert made == tmp_path / "out" / "bundles"
    ours = root / "bundles/brats_lora32/configs/train.json"
    assert (made / "brats_lora32/configs/train.json").read_text(encoding="utf-8") == ours.read_text(
        encoding="utf-8"
    )


def test_sizes_of_the_encoder_are_those_of_all_runs(data, tmp_path):
    """`baseline` and the references are compared with runs that start from it."""
    vit = ViT(1, (32, 32, 16), 16, hidden_size=48, mlp_dim=96, num_layers=4, num_heads=4)
    path = tmp_path / "encoder.safetensors"
    save_encoder(vit.state_dict(), path, img_size=(32, 32, 16), num_heads=4)
    sizes = {"hidden_size": 48, "mlp_dim": 96, "num_layers": 4, "num_heads": 4}
    bundles, knobs = "brats_baseline,brats_lora16", {"pretrained": str(path)}
    for run in plan_runs(data, bundles, reference="unetr", knobs=knobs):
        assert {k: v for k, v in run.knobs.items() if k != "pretrained"} == sizes
        assert ("pretrained" in run.knobs) == (run.row == "brats_lora16")
    given = plan_runs(data, bundles, knobs=knobs | {"hidden_size": 48})
    assert all({k: run.knobs[k] for k in sizes} == sizes for run in given)


def test_sizes_of_an_encoder_are_settings_of_a_study():
    assert {"hidden_size", "num_heads", "qkv_bias", "norm_eps"} <= set(known_settings())


def test_encoder_by_its_address_needs_no_file():
    check_pretrained([replace(RUN, knobs={"pretrained": "hf://owner/name/vit.safetensors"})])
