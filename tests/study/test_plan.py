"""Rows, seeds, folds and knobs of a study."""

import json

import pytest

from lora_ext.study.plan import BUNDLES, check_knobs, known_knobs, plan_runs


@pytest.fixture
def data(tmp_path):
    """A folder with both task folders, as far as a plan looks at them."""
    for name in ("phantom_brats", "Task05_Prostate"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dataset.json").write_text("{}")
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


def test_knobs_are_kept_as_json_holds_them():
    assert check_knobs({"roi_size": (32, 32, 16), "amp": False, "pretrained": None}) == {
        "roi_size": [32, 32, 16],
        "amp": False,
        "pretrained": None,
    }


def test_knobs_are_settings_and_not_wiring(root):
    config = json.loads((root / "bundles/brats_lora32/configs/train.json").read_text())
    knobs = known_knobs()
    assert set(knobs) <= set(config)
    assert {"device", "epochs", "learning_rate", "roi_size", "modalities", "amp"} <= set(knobs)
    assert {"pretrained", "training_cases", "lora_scaling", "lora_targets"} <= set(knobs)
    assert not {"network_def", "train", "imports", "cases", "mixed_precision"} & set(knobs)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"bundles": "brats_lora8"}, "unknown bundle 'brats_lora8'; known are brats_baseline, "),
        ({"reference": "swin"}, "unknown reference network 'swin'; known are segresnet, "),
        ({"knobs": {"epoch": 3}}, "unknown knob --epoch; known are device, "),
        ({"knobs": {"network_def": 3}}, "unknown knob --network_def; known are "),
        ({"knobs": {"regime": "lora"}}, "unknown knob --regime; known are "),
        ({"knobs": {"seed": 1}}, "unknown knob --seed; .* --seeds"),
        ({"seeds": "one"}, "seeds: found 'one'; allowed are whole numbers"),
        ({"seeds": ""}, "seeds: found ''; allowed are whole numbers"),
        ({"knobs": {"lora_rank": 8}}, "unknown knob --lora_rank; known are "),
        (
            {"knobs": {"pretrained": "{row}.pt"}},
            r"found \{row\} in .*; allowed are \{dataset\} and",
        ),
        ({"folds": 5}, "folds: found 5; allowed are 0 to 4"),
        ({"folds": 2, "knobs": {"num_folds": 2}}, "folds: found 2; allowed are 0 to 1"),
    ],
)
def test_bad_requests_are_one_sentence(data, arguments, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        plan_runs(data, **arguments)
    assert "\n" not in str(caught.value)
