"""Every form of a pre-trained ViT that `pretrained` takes (DESIGN section 6)."""

import pytest
import safetensors.torch
import torch
from monai.networks.blocks import TransformerBlock
from monai.networks.nets import UNETR, ViTAutoEnc

from lora_ext import load_encoder
from lora_ext.networks.regimes import parameter_parts


def under(prefix, state):
    return {f"{prefix}{k}": v for k, v in state.items()}


WRAPPINGS = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {"model": s},
    "nested": lambda s: {"model": {"state_dict": s}},
    "module.": lambda s: under("module.", s),
    "vit.": lambda s: under("vit.", s),
    "encoder.": lambda s: under("encoder.", s),
    "state_dict, module.": lambda s: {"state_dict": under("module.", s)},
    "state_dict, module.vit.": lambda s: {"state_dict": under("module.vit.", s)},
    "model, module.encoder.": lambda s: {"model": under("module.encoder.", s), "epoch": 3},
    "model, vit.": lambda s: {"model": under("vit.", s)},
}
PREFIXES = ["", "module.", "vit.", "encoder.", "module.encoder."]


@pytest.fixture
def build_network(build_vit, build_autoencoder):
    """A function that builds one of MONAI's networks around a ViT: network, prefix, its depth."""

    def build(kind):
        torch.manual_seed(7)
        image = {"in_channels": 1, "img_size": (32, 32, 16)}
        sizes = {"hidden_size": 48, "mlp_dim": 96, "num_heads": 4}
        if kind == "UNETR":  # MONAI's has twelve blocks
            return UNETR(**image, out_channels=2, feature_size=4, **sizes), "vit.", 12
        if kind == "ViTAutoEnc":
            return ViTAutoEnc(**image, patch_size=16, num_layers=4, **sizes), "", 4
        vit = build_vit(classification=True) if kind == "classifying ViT" else build_vit()
        return (build_autoencoder() if kind == "MaskedAutoEncoderViT" else vit), "", 4

    return build


KINDS = ["ViT", "classifying ViT", "ViTAutoEnc", "MaskedAutoEncoderViT", "UNETR"]


def assert_loaded(network, report, state, prefix=""):
    """Every weight of the encoder holds the value of MONAI's key of the same name."""
    depth = len(network.encoder.blocks)
    own, keys = network.encoder.state_dict(), report.loaded
    assert report.missing == []
    assert len(keys) == len(parameter_parts(network)["encoder"])
    for key in keys:
        theirs = prefix + key
        if theirs not in state:  # the masked auto-encoder's final norm
            theirs = prefix + key.replace("norm.", f"blocks.{depth}.")
        assert torch.equal(own[key], state[theirs]), key


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_monais_networks_load_in_any_wrapping(
    small_network, build_network, torch_file, kind, wrapping
):
    source, prefix, depth = build_network(kind)
    network = small_network(num_layers=depth)
    report = load_encoder(network, torch_file(WRAPPINGS[wrapping](source.state_dict())))
    assert_loaded(network, report, source.state_dict(), prefix)
    assert len(report.loaded) + len(report.skipped) == len(source.state_dict())


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("kind", KINDS)
def test_safetensors_load_too(tmp_path, small_network, build_network, kind, prefix):
    source, own_prefix, depth = build_network(kind)
    path = tmp_path / "v.safetensors"
    safetensors.torch.save_file(under(prefix, source.state_dict()), path)
    network = small_network(num_layers=depth)
    report = load_encoder(network, path)
    assert_loaded(network, report, source.state_dict(), own_prefix)


@pytest.mark.parametrize(
    ("kind", "skipped"),
    [
        ("ViT", "blocks.0.norm_cross_attn.weight"),
        ("classifying ViT", "cls_token"),
        ("ViTAutoEnc", "conv3d_transpose.weight"),
        ("MaskedAutoEncoderViT", "decoder_blocks.0.attn.qkv.weight"),
        ("UNETR", "decoder5.transp_conv.conv.weight"),
    ],
)
def test_what_is_not_encoder_is_skipped_by_name(
    small_network, build_network, torch_file, kind, skipped
):
    source, _, depth = build_network(kind)
    report = load_encoder(small_network(num_layers=depth), torch_file(source.state_dict()))
    assert skipped in report.skipped


def test_one_of_our_own_whole_networks_gives_its_encoder(small_network, torch_file):
    source, network = small_network(regime="finetune", seed=4), small_network()
    report = load_encoder(network, torch_file(source.state_dict()))
    assert_loaded(network, report, source.state_dict(), "encoder.")


def old_monai(vit, version):
    """The ViT's state dict as an older MONAI names it.

    Up to 1.3 the blocks had no cross-attention at all; 1.4 and 1.5 made `cross_attn` and
    `norm_cross_attn` in every block, used or not (Project-MONAI/MONAI pull request 8848, and
    `load_old_state_dict` in monai/networks/nets/vit.py).
    """
    state = vit.state_dict()
    if version == "1.3":
        return {k: v for k, v in state.items() if "cross_attn" not in k}
    for index in range(len(vit.blocks)):
        block = TransformerBlock(48, 96, 4, with_cross_attention=True).state_dict()
        unused = {k: v for k, v in block.items() if "cross_attn" in k}
        state |= under(f"blocks.{index}.", unused)
    return state


@pytest.mark.parametrize("version", ["1.3", "1.5"])
@pytest.mark.parametrize("kind", ["ViT", "ViTAutoEnc", "MaskedAutoEncoderViT"])
def test_files_of_older_monai_versions_load(
    small_network, build_network, torch_file, kind, version
):
    source = build_network(kind)[0]
    if kind == "MaskedAutoEncoderViT":
        norm, source.blocks = source.blocks[-1], source.blocks[:-1]
        state = old_monai(source, version) | under("blocks.4.", norm.state_dict())
    else:
        state = old_monai(source, version)
    network = small_network()
    report = load_encoder(network, torch_file(state))
    assert_loaded(network, report, state)
    unused = {k.split(".")[2] for k in report.skipped if k.startswith("blocks.")}
    assert unused == ({"cross_attn", "norm_cross_attn"} if version == "1.5" else set())
    if version == "1.5":
        assert "blocks.0.cross_attn.to_q.weight" in report.skipped


def brainiac(build_vit, **sizes):
    """A checkpoint of the form of BrainIAC.ckpt, with random weights.

    BrainIAC (Tak et al.) is MONAI's ViT-B on one channel, 96^3 voxels in patches of 16^3, trained
    with MONAI 1.3 and PyTorch Lightning. ``state_dict`` and ``backbone.`` are those of
    AIM-KannLab/BrainIAC, src/model.py, class ViTBackboneNet (read in its fork ss8319/BrainIAC);
    that the blocks have no ``cross_attn`` or ``norm_cross_attn`` is in that project's issue 3.
    The projection head is SimCLR's; its name is ours.
    """
    vit = build_vit(img_size=(96, 96, 96), num_layers=12, save_attn=True, **sizes)
    state = {f"backbone.{k}": v for k, v in old_monai(vit, "1.3").items()}
    state["projection_head.0.weight"] = torch.zeros(3, 3)
    return {"state_dict": state, "epoch": 9, "hyper_parameters": {"lr": 1e-4}}


@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden_size": 48, "mlp_dim": 192, "num_heads": 12},
        pytest.param(
            {"hidden_size": 768, "mlp_dim": 3072, "num_heads": 12}, marks=pytest.mark.slow
        ),
    ],
    ids=["narrow", "ViT-B"],
)
def test_brainiacs_vit_loads_with_its_positions_resampled(
    small_network, build_vit, torch_file, sizes
):
    checkpoint = brainiac(build_vit, **sizes)
    state = checkpoint["state_dict"]
    positions = state["backbone.patch_embedding.position_embeddings"]
    assert positions.shape == (1, 216, sizes["hidden_size"])
    positions.copy_(torch.linspace(-1, 1, sizes["hidden_size"]).expand_as(positions))
    network = small_network(img_size=(128, 128, 48), num_layers=12, **sizes)
    report = load_encoder(network, torch_file(checkpoint, "BrainIAC.ckpt"))
    assert report.resampled == ([6, 6, 6], [8, 8, 3])
    assert (report.missing, report.skipped) == ([], ["projection_head.0.weight"])
    own = network.encoder.state_dict()
    fitted = own["patch_embedding.position_embeddings"]
    assert torch.allclose(fitted, positions[:, :1].expand(1, 192, -1), atol=1e-6)
    blocks = [k for k in report.loaded if not k.endswith("position_embeddings")]
    assert all(torch.equal(own[k], state[f"backbone.{k}"]) for k in blocks)
