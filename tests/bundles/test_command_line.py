"""The bundles from the command line, as a user runs them."""

import shutil

import pytest

from lora_ext import ChannelLoRAUNETR
from lora_ext.weights import save_encoder

SMALL = [
    *("--roi_size", "[32,32,16]", "--feature_size", "4", "--hidden_size", "24", "--mlp_dim", "32"),
    *("--num_layers", "2", "--num_heads", "2", "--num_workers", "0", "--sw_overlap", "0.0"),
]
SIZES = {"feature_size": 4, "hidden_size": 24, "mlp_dim": 32, "num_layers": 4, "num_heads": 2}
SHORT = ["--epochs", "1", "--batch_size", "2", "--crops_per_case", "1", "--pretrained", "none"]


@pytest.fixture
def workplace(root, tmp_path):
    """A copy of one bundle in a folder of its own, so that no run writes into the repository."""
    shutil.copytree(root / "bundles" / "brats_lora32", tmp_path / "bundles" / "brats_lora32")
    return tmp_path


@pytest.fixture
def refusal(monai_bundle, workplace):
    """A function: the one sentence that a run of brats_lora32 ends with, and all of its stderr."""

    def run(*arguments):
        config = "bundles/brats_lora32/configs/train.json"
        done = monai_bundle("run", *arguments, *SMALL, "--config_file", config, cwd=workplace)
        assert done.returncode == 1
        return done.stderr.splitlines()[-2], done.stderr

    return run


@pytest.mark.parametrize("inside", [True, False], ids=["from_the_root", "from_another_folder"])
def test_training_evaluating_and_inference(
    monai_bundle, workplace, tmp_path_factory, tasks, inside
):
    cwd = workplace if inside else tmp_path_factory.mktemp("elsewhere")
    bundle = workplace / "bundles" / "brats_lora32"
    configs = "bundles/brats_lora32/configs" if inside else bundle / "configs"
    data = ["--dataset_dir", tasks["brats"], *SMALL]

    train = monai_bundle(
        "run", "training", "--config_file", f"{configs}/train.json", *data, *SHORT, cwd=cwd
    )
    assert train.returncode == 0, train.stderr
    assert "4 training cases, 1 for validation" in train.stdout
    assert "epoch 1/1: validation pooled_dice" in train.stdout
    assert (bundle / "models" / "model.pt").is_file()
    assert list((bundle / "eval").glob("events.*"))

    files = f"['{configs}/train.json','{configs}/evaluate.json']"
    evaluate = monai_bundle("run", "evaluating", "--config_file", files, *data, cwd=cwd)
    assert evaluate.returncode == 0, evaluate.stderr
    assert "pooled" in evaluate.stdout
    assert (bundle / "eval" / "metrics.json").is_file()

    infer = monai_bundle("run", "--config_file", f"{configs}/inference.json", *data, cwd=cwd)
    assert infer.returncode == 0, infer.stderr
    written = (bundle / "eval" / "segmentations").glob("[!.]*")
    assert [path.name for path in written] == ["brats_0006.nii.gz"]


def test_an_encoder_that_does_not_fit_ends_the_run_with_one_sentence(refusal, tasks, workplace):
    encoder = workplace / "bundles" / "mae_pretrain" / "models" / "encoder.safetensors"
    encoder.parent.mkdir(parents=True)
    state = ChannelLoRAUNETR(1, 1, (32, 32, 16), **SIZES).encoder.state_dict()
    state = {k: v for k, v in state.items() if "lora" not in k}
    save_encoder(state, encoder, img_size=(32, 32, 16), num_heads=2)
    sentence, errors = refusal("training", "--dataset_dir", tasks["brats"])
    assert sentence.startswith(f"error: {encoder.resolve()}: depth 4; this network has 2")
    assert sentence.endswith(
        "; leave these out, since the file says them, or give --pretrained none"
    )
    assert "Traceback" not in errors
    assert "terminating" not in errors  # ignite's own line about the same error


def test_run_is_the_same_as_training_and_bad_input_is_one_sentence(refusal, tasks):
    sentence, errors = refusal("--dataset_dir", tasks["prostatex"])
    assert sentence.startswith("error: ")
    assert "FLAIR" in sentence
    assert "ADC" in sentence
    assert "Traceback" not in errors
