"""Published forms of single-channel Swin weights; MONAI's own networks as oracle."""

import pytest
import torch
from monai.networks.nets import SwinUNETR
from torch import nn

from lora_ext import (
    ChannelLoRASwinUNETR,
    load_adapter,
    load_encoder,
    load_model,
    network_for_encoder,
    save_adapter,
)
from lora_ext.weights import save_model
from lora_ext.weights.start import encoder_sizes, start_encoder

SIZE = (64, 32, 32)
SIZES = {"feature_size": 12, "depths": [1, 2, 1, 1], "num_heads": [2, 2, 2, 4]}
HEADS = ("rotation_head", "contrastive_head", "convTrans3d")


def build(seed=0, **arguments):
    torch.manual_seed(seed)
    return ChannelLoRASwinUNETR(2, 3, SIZE, lora_rank=2, **{**SIZES, **arguments})


def monais(in_channels=1, **arguments):
    torch.manual_seed(7)
    return SwinUNETR(in_channels, 3, **{**SIZES, **arguments})


def older(key):
    """The names of MONAI before 0.9."""
    return key.replace("mlp.linear", "mlp.fc")


def twice(key):
    """A stage's layers numbered twice, as in the weights of MONAI's `filter_swinunetr`."""
    return key.replace(".0.blocks", ".0.0.blocks").replace(".0.downsample", ".0.0.downsample")


FORMS = {
    "SwinTransformer": lambda swin: swin,
    "SwinUNETR": lambda swin: monais().state_dict(),
    "SSLHead": lambda swin: {"state_dict": _with_heads(swin, "swinViT.", "")},
    "SSL on 5,050 CT": lambda swin: {
        "state_dict": _with_heads({older(k): v for k, v in swin.items()}, "module.", "module.")
    },
    "BrainSegFounder": lambda swin: {
        "epoch": 3, "state_dict": _with_heads(swin, "module.swinViT.", "module.")
    },
    "older VoCo": lambda swin: _with_heads({older(k): v for k, v in swin.items()}, "swin_vit.", ""),
    "VoCo 10k, V2": lambda swin: _with_heads(swin, "module.swin_vit.", "module."),
    "VoCo B, V2": lambda swin: _with_heads(swin, "swinViT.", ""),
    "disruptive auto-encoder": lambda swin: {
        "model": {f"encoder.{twice(older(k))}": v for k, v in swin.items()}
        | {"encoder.mask_token": torch.zeros(1), "encoder.norm.weight": torch.ones(96)}
    },
}  # fmt: skip


def _with_heads(swin, prefix, outside):
    heads = {f"{outside}{name}.weight": torch.randn(4, 4) for name in HEADS}
    return {prefix + k: v for k, v in swin.items()} | heads


@pytest.mark.parametrize("form", FORMS)
def test_published_form_loads_and_computes_what_monais_transformer_does(form, torch_file):
    peer = monais(use_v2="V2" in form).swinViT
    content = FORMS[form](peer.state_dict())
    network = build(regime="frozen", use_v2="V2" in form)
    report = load_encoder(network, torch_file(content))
    assert set(report.loaded) == {name for name, _ in peer.named_parameters()}
    assert report.missing == []
    flat = content.get("state_dict", content.get("model", content))
    own = [k for k in flat if "layers" in k or "patch_embed" in k]
    assert set(report.skipped) == set(flat) - set(own)
    if "head" in str(report.skipped):
        assert all(name in str(report) for name in HEADS)
    x = torch.randn(1, 2, *SIZE)
    with torch.no_grad():
        for tap, volume in zip(network.encoder(x), peer(x.transpose(0, 1)), strict=True):
            assert torch.equal(tap[0], volume.flatten(2).transpose(1, 2))


def broken(swin, key, value=None):
    rest = {k: v for k, v in swin.items() if k != key}
    return rest if value is None else rest | {key: value}


LINEAR = "layers2.0.blocks.1.mlp.linear1.weight"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: monais(feature_size=24).state_dict(), r"size 24; .* 12 \(--feature_size\)"),
        (lambda: monais(depths=[2, 2, 1, 1]).state_dict(), r"depths \[2, 2, 1, 1\]; .*--depths"),
        (lambda: monais(num_heads=[3, 2, 2, 4]).state_dict(), r"heads \[3, 2, 2, 4\];.*num_heads"),
        (lambda: monais(window_size=5).state_dict(), r"window \[5, 5, 5, 5\]; this network has"),
        (lambda: monais(in_channels=2).state_dict(), "input channels 2; .* encoded on its own"),
        (lambda: monais(use_v2=True).state_dict(), r"use_v2 True; .* False \(--use_v2\)"),
        (lambda: broken(monais().swinViT.state_dict(), LINEAR), f"lacks 1 .*{LINEAR}"),
        (
            lambda: broken(monais().swinViT.state_dict(), LINEAR, torch.full((96, 24), torch.nan)),
            "not finite",
        ),
        (
            lambda: broken(monais().swinViT.state_dict(), "layers1.0.extra", torch.ones(3)),
            "no place for, the first is 'layers1.0.extra'",
        ),
        (lambda: nn.Linear(2, 2).state_dict(), "expected one Swin encoder of MONAI"),
        (
            lambda: {f"{n}.{k}": v for n in "ab" for k, v in monais().swinViT.state_dict().items()},
            r"found \['a.', 'b.'\]",
        ),
    ],
)
def test_wrong_file_is_refused_in_one_sentence_and_nothing_is_loaded(content, message, torch_file):
    network = build()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(ValueError, match=message) as error:
        load_encoder(network, torch_file(content()))
    assert "\n" not in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_vit_is_no_swin_and_swin_no_vit(small_network, torch_file):
    with pytest.raises(ValueError, match=r"expected one Swin encoder .* another --backbone"):
        load_encoder(build(), torch_file(small_network().encoder.state_dict()))
    with pytest.raises(ValueError, match=r"found a Swin transformer .*--backbone swin_unetr takes"):
        load_encoder(small_network(), torch_file(monais().state_dict()))


def test_adapter_file_brings_back_what_was_trained(tmp_path, wake_adapters, torch_file):
    encoder = torch_file(monais().state_dict())
    trained, fresh = wake_adapters(build(seed=1)), build(seed=2)
    start_encoder(trained, str(encoder))
    assert trained.config["encoder"].startswith("vit.pt (sha256 ")
    save_adapter(trained, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="trained on another encoder"):
        load_adapter(fresh, tmp_path / "a.safetensors")
    load_encoder(fresh, encoder)
    load_adapter(fresh, tmp_path / "a.safetensors")
    x = torch.randn(1, 2, *SIZE)
    with torch.no_grad():
        assert torch.equal(fresh(x), trained(x))
    with pytest.raises(ValueError, match=r"made for a network with num_heads \[2, 2, 2, 4\]"):
        load_adapter(build(num_heads=[2, 2, 2, 2]), tmp_path / "a.safetensors")


def test_model_file_loads_into_its_own_backbone_alone(tmp_path, small_network):
    network, path = build(), tmp_path / "model.pt"
    save_model(network, path)
    again = build(seed=3)
    load_model(again, path)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in network.state_dict().items())
    with pytest.raises(ValueError, match="backbone swin_unetr"):
        load_model(small_network(), path)


def test_model_of_before_there_were_backbones_is_a_unetrs(tmp_path, small_network):
    made, path = small_network(), tmp_path / "model.pt"
    del made.config["backbone"]
    save_model(made, path)
    load_model(small_network(seed=5), path)
    with pytest.raises(ValueError, match="backbone unetr"):
        load_model(build(), path)


@pytest.mark.parametrize("use_v2", [False, True])
def test_file_sets_the_sizes_of_the_network(tmp_path, use_v2):
    swin = monais(use_v2=use_v2).swinViT.state_dict()
    path = tmp_path / "swin.pt"
    torch.save(swin, path)
    said = {**SIZES, "use_v2": use_v2}
    default = {"hidden_size": 768, "feature_size": None, "num_heads": None}
    found = encoder_sizes("lora", default, str(path), backbone="swin_unetr")
    assert found == {**default, **said, "file": str(path), "said": said}
    network = network_for_encoder(path, 2, 3, SIZE, regime="frozen")
    assert {key: network.config[key] for key in said} == said
    own = network.encoder.state_dict()
    assert all(torch.equal(own[key], value) for key, value in swin.items() if key in own)
    with pytest.raises(
        ValueError, match=r"feature size 12; this network has 24 \(--feature_size\)"
    ):
        network_for_encoder(path, 2, 3, SIZE, regime="frozen", feature_size=24)


def test_encoder_that_mae_pretrain_left_beside_the_bundle_is_not_for_swin(tmp_path):
    left = tmp_path / "mae_pretrain" / "models" / "encoder.safetensors"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"a ViT")
    bundle = tmp_path / "brats_lora32"
    found = encoder_sizes("lora", {}, None, None, bundle, backbone="swin_unetr")
    assert found == {"file": None, "said": {}}
