"""``monai.bundle ckpt_export`` and ``onnx_export`` of every bundle, against the network itself.

Exported networks compute in another order, so they differ in the last digits of float32:
`TOLERANCE` is of the largest output. bfloat16, which the bundles themselves run in, costs a hundred
times as much; adapters left out, or channels in another order, cost thousands of times as much.
"""

import gc
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from monai.bundle import ConfigParser, ckpt_export, onnx_export
from monai.data import load_net_with_metadata

from lora_ext.bundles.generator import facts_of, render_bundle
from lora_ext.weights import save_model

# torch 2.13's exporter uses a class that it deprecates itself
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = sorted(path.parents[1].name for path in ROOT.glob("bundles/*/configs/inference.json"))
# The others have these graphs, with other ranks; TorchScript is made of all.
GRAPHS = ("brats_baseline", "brats_lora32", "prostatex_lora16", "mae_pretrain")
TOLERANCE = 1e-5
SMALL = {
    "roi_size": [32, 48, 16],
    "feature_size": 4,
    "hidden_size": 24,
    "mlp_dim": 32,
    "num_layers": 4,
    "num_heads": 2,
    "decoder_hidden_size": 12,
    "decoder_mlp_dim": 16,
    "decoder_num_layers": 1,
    "decoder_num_heads": 2,
}
NAMES = {"input_names": ["image"], "output_names": ["pred"], "external_data": False}
DYNAMIC = {"dynamic_shapes": [{0: "batch"}]}


def test_bundles_on_disk_are_the_thirteen():
    regimes = ("baseline", "finetune", "frozen", "lora16", "lora32", "lora64")
    segmentation = {f"{data}_{regime}" for data in ("brats", "prostatex") for regime in regimes}
    assert set(BUNDLES) == segmentation | {"mae_pretrain"}


@pytest.fixture
def exportable(tmp_path, wake_adapters):
    """A function: name -> a small bundle's folder, whose adapters count, and its network."""

    def make(name, settings=SMALL):
        folder = tmp_path / name
        for path, text in render_bundle(facts_of(name, {"test": settings})).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        parser = ConfigParser()
        parser.read_config(folder / "configs" / "inference.json")
        torch.manual_seed(0)
        network = wake_adapters(parser.get_parsed_content("network_def")).eval()
        save_model(network, folder / "models" / "model.pt")
        return folder, network

    return make


def files(folder):
    """The arguments that say where a bundle's files are."""
    return {
        "net_id": "network_def",
        "ckpt_file": str(folder / "models" / "model.pt"),
        "config_file": str(folder / "configs" / "inference.json"),
        "meta_file": str(folder / "configs" / "metadata.json"),
    }


def images(folder, batch):
    """Random images as the bundle's metadata describe its input."""
    metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    image = metadata["network_data_format"]["inputs"]["image"]
    generator = torch.Generator().manual_seed(batch)
    shape = (batch, image["num_channels"], *image["spatial_shape"])
    return torch.randn(shape, generator=generator)


def error(output, expected):
    """The largest difference, as a share of the largest output."""
    assert output.shape == expected.shape
    return float((output - expected).abs().max() / expected.abs().max())


def export_onnx(folder, path, **flags):
    """``onnx_export``; MONAI 1.6.1 leaves its temporary file open until it is collected."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        onnx_export(filepath=str(path), **files(folder), **flags)
        gc.collect()


def run_onnx(path, image):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    return torch.from_numpy(np.asarray(output))


@pytest.mark.parametrize("name", BUNDLES)
def test_torchscript_computes_what_the_network_does(exportable, name):
    folder, network = exportable(name)
    path = folder / "models" / "model.ts"
    ckpt_export(filepath=str(path), **files(folder))
    exported = torch.jit.load(path)
    for batch in (1, 3):
        image = images(folder, batch)
        with torch.no_grad():
            assert error(exported(image), network(image)) < TOLERANCE


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n != "brats_lora32" else []) for n in GRAPHS],
)
def test_onnx_computes_what_the_network_does(exportable, name):
    folder, network = exportable(name)
    path = folder / "models" / "model.onnx"
    shape = list(images(folder, 2).shape)
    settings = {**NAMES, **DYNAMIC}
    export_onnx(folder, path, input_shape=shape, use_trace=True, converter_kwargs=settings)
    onnx.checker.check_model(path, full_check=True)
    for batch in (1, 3):
        image = images(folder, batch)
        with torch.no_grad():
            assert error(run_onnx(path, image), network(image)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:__array_wrap__")
def test_swin_unetr_is_traced_and_computes_the_same_in_both_formats(exportable):
    swin = {"backbone": "swin_unetr", "roi_size": [64, 32, 32], "feature_size": 12,
            "depths": [1, 1, 1, 1], "num_heads": [2, 2, 2, 2]}  # fmt: skip
    folder, network = exportable("prostatex_lora16", swin)
    shape = list(images(folder, 1).shape)
    path, other = folder / "models" / "model.ts", folder / "models" / "model.onnx"
    ckpt_export(filepath=str(path), **files(folder), use_trace=True, input_shape=shape)
    export_onnx(folder, other, input_shape=shape, use_trace=True, converter_kwargs=dict(NAMES))
    image = images(folder, 1)
    with torch.no_grad():
        assert error(torch.jit.load(path)(image), network(image)) < TOLERANCE
        assert error(run_onnx(other, image), network(image)) < TOLERANCE


@pytest.mark.slow
def test_onnx_without_flags_takes_one_image_of_the_metadatas_size(exportable, monkeypatch):
    folder, network = exportable("prostatex_lora64")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))  # MONAI leaves a file of weights there
    path = folder / "model.onnx"
    export_onnx(folder, path)
    assert not [tensor for tensor in onnx.load(path).graph.initializer if tensor.external_data]
    image = images(folder, 1)
    with torch.no_grad():
        assert error(run_onnx(path, image), network(image)) < TOLERANCE
    with pytest.raises(Exception, match="Got invalid dimensions for input"):
        run_onnx(path, images(folder, 2))


def test_adapters_and_the_order_of_channels_matter_far_beyond_the_tolerance(exportable):
    folder, network = exportable("brats_lora32")
    image = images(folder, 1)
    with torch.no_grad():
        expected = network(image)
        assert error(network(image[:, [1, 0, 2, 3]]), expected) > 1000 * TOLERANCE
        for name, parameter in network.named_parameters():
            if name.endswith("lora_B"):
                parameter.zero_()
        assert error(network(image), expected) > 1000 * TOLERANCE


def test_flags_that_the_weights_were_not_trained_with_are_refused(exportable):
    folder, _ = exportable("prostatex_lora16")
    path = folder / "model.ts"
    for flags, needed in (
        ({"lora_alpha": 4.0}, '--lora_alpha "8.0"'),
        ({"modalities": ["ADC", "T2"]}, r"--modalities \"\['T2', 'ADC'\]\""),
    ):
        with pytest.raises(RuntimeError, match=needed):
            ckpt_export(filepath=str(path), **files(folder), **flags)
    assert not path.exists()


def test_torchscript_takes_the_mask_of_present_channels(exportable):
    folder, network = exportable("brats_lora16")
    ckpt_export(filepath=str(folder / "model.ts"), **files(folder))
    exported = torch.jit.load(folder / "model.ts")
    image, present = images(folder, 2), torch.tensor([[True, False, True, True], [True] * 4])
    with torch.no_grad():
        assert error(exported(image, present), network(image, present)) < TOLERANCE


def test_torchscript_carries_metadata_and_config(exportable):
    folder, network = exportable("prostatex_frozen")
    ckpt_export(filepath=str(folder / "model.ts"), **files(folder))
    exported, metadata, extra = load_net_with_metadata(
        str(folder / "model.ts"), more_extra_files=("inference.json",)
    )
    assert metadata == json.loads(
        (folder / "configs" / "metadata.json").read_text(encoding="utf-8")
    )
    config = json.loads((folder / "configs" / "inference.json").read_text(encoding="utf-8"))
    assert json.loads(extra["inference.json"]) == config
    image = images(folder, 1)
    with torch.no_grad():
        assert error(exported(image), network(image)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("inside", [True, False], ids=["from_its_folder", "from_another_folder"])
def test_commands_of_the_documents(exportable, monai_bundle, tmp_path_factory, inside):
    folder, network = exportable("brats_finetune")
    cwd = folder.parent if inside else tmp_path_factory.mktemp("elsewhere")
    bundle = Path(folder.name) if inside else folder
    models, configs = bundle / "models", bundle / "configs"
    script = monai_bundle(
        "ckpt_export", "--bundle_root", bundle, "--config_file", configs / "inference.json", cwd=cwd
    )
    assert script.returncode == 0, script.stderr
    net = monai_bundle(
        "onnx_export", "network_def", "--config_file", configs / "inference.json",
        "--meta_file", configs / "metadata.json", "--ckpt_file", models / "model.pt",
        "--filepath", models / "model.onnx", "--use_trace", "True",
        "--converter_kwargs", str(NAMES), cwd=cwd,
    )  # fmt: skip
    assert net.returncode == 0, net.stderr
    image = images(folder, 1)
    with torch.no_grad():
        expected = network(image)
        assert error(torch.jit.load(folder / "models" / "model.ts")(image), expected) < TOLERANCE
    assert error(run_onnx(folder / "models" / "model.onnx", image), expected) < TOLERANCE
