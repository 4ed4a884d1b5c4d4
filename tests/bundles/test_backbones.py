"""The second backbone through the bundles: one flag trains it, and its record says the rest."""

import json

import pytest
import torch

from lora_ext import network_from_record
from lora_ext.bundles.generator import bundle_facts, facts_of, render_bundle
from lora_ext.networks.regimes import REGIMES
from lora_ext.weights import read_record

FACTS = bundle_facts()
SWIN = {
    "backbone": "swin_unetr", "roi_size": [64, 32, 32], "feature_size": 12,
    "depths": [1, 1, 1, 1], "num_heads": [2, 2, 2, 2],
}  # fmt: skip
RUN = {"num_workers": 0, "sw_overlap": 0.0}
TRAINING = {"epochs": 1, "batch_size": 2, "crops_per_case": 1, "cache_rate": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FACTS if name.startswith("prostatex")])
def test_swin_unetr_trains_evaluates_and_infers_from_its_record(
    run_workflow, tasks, tmp_path, name
):
    own = {"dataset_dir": str(tasks["prostatex"]), "logging_file": False, **RUN}
    trained = run_workflow(name, "train", **own, **TRAINING, **SWIN)
    network = trained.parser.get_parsed_content("network_def")
    regime = FACTS[name]["regime"]
    record = read_record(tmp_path / "models" / "model.pt")
    assert {key: record[key] for key in ("backbone", "depths", "num_heads")} == {
        key: SWIN[key] for key in ("backbone", "depths", "num_heads")
    }
    assert type(network_from_record(record)) is type(network)
    adapter = tmp_path / "models" / "adapter.safetensors"
    assert adapter.exists() == ("encoder" not in REGIMES[regime].trained)
    # neither the backbone nor a size is repeated
    run_workflow(name, "evaluate", **own)
    report = json.loads((tmp_path / "evaluate" / "metrics.json").read_text(encoding="utf-8"))
    assert set(report["regions"]) == set(FACTS[name]["regions"])
    inferred = run_workflow(name, "infer", **own)
    used = inferred.parser.get_parsed_content("network_def").state_dict()
    state = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(used[key], value) for key, value in state.items())
    written = {p.name for p in (tmp_path / "infer").iterdir() if p.name[0] != "."}
    assert written == {p.name for p in (tasks["prostatex"] / "imagesTs").iterdir()}
    with pytest.raises(RuntimeError) as error:
        run_workflow(name, "infer", **own, hidden_size=48)
    assert "--hidden_size: got 48, which backbone unetr" in str(_innermost(error.value))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({**SWIN, "hidden_size": 48}, "--hidden_size: got 48, which backbone unetr alone takes"),
        ({**SWIN, "num_layers": 4}, "--num_layers: got 4, .* leave it out for swin_unetr, or pass"),
        ({"depths": [1, 1, 1, 1]}, "--depths: .* swin_unetr alone takes; leave it out for unetr"),
        ({"backbone": "swin_unetr"}, r"--roi_size: expected multiples of 32, .*; got \[128, 128"),
        ({"backbone": "swin"}, "--backbone: expected a text, unetr, swin_unetr; got 'swin'"),
        ({**SWIN, "num_heads": 12}, "--num_heads: expected .* a list of four for swin_unetr"),
    ],
)
def test_flag_that_the_backbone_does_not_take_ends_the_run(run_workflow, tmp_path, flags, message):
    with pytest.raises(RuntimeError) as error:
        run_workflow("prostatex_lora16", "train", dataset_dir=str(tmp_path), **flags)
    with pytest.raises(ValueError, match=message):
        raise _innermost(error.value)


def _innermost(error):
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def test_rendered_bundle_says_which_backbone_it_is_for():
    readme = "docs/README.md"
    plain = render_bundle(facts_of("brats_lora32"))[readme]
    assert "A single-channel ViT (patches of 16x16x16 voxels, 12 blocks, 768 features)" in plain
    baked = render_bundle(facts_of("brats_lora32", {"test": SWIN}))
    assert "A single-channel Swin transformer (stages of 1, 1, 1, 1 blocks)" in baked[readme]
    assert "MONAI SwinUNETR's decoder" in baked[readme]
    assert json.loads(baked["configs/inference.json"])["trained"]["default"]["depths"] == [1] * 4
