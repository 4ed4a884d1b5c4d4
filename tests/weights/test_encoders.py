import argparse
import logging

import pytest
import safetensors.torch
import torch
from monai.networks.nets import UNETR, MaskedAutoEncoderViT, ViT

from lora_ext import load_encoder
from lora_ext.regimes import parameter_parts
from lora_ext.weights import start_encoder

SIZES = {"hidden_size": 48, "mlp_dim": 96, "num_layers": 4, "num_heads": 4}
IMAGE = {"in_channels": 1, "img_size": (32, 32, 16), "patch_size": 16}


@pytest.fixture
def vit():
    torch.manual_seed(5)
    return ViT(**IMAGE, **SIZES)


def save(content, path):
    torch.save(content, path)
    return path


def equal_to(network, vit):
    own = network.encoder.state_dict()
    return all(torch.equal(own[k], v) for k, v in vit.state_dict().items() if k in own)


WRAPPINGS = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {"model": s},
    "nested": lambda s: {"model": {"state_dict": s}},
    "module.": lambda s: {f"module.{k}": v for k, v in s.items()},
    "vit.": lambda s: {f"vit.{k}": v for k, v in s.items()},
    "encoder.": lambda s: {f"encoder.{k}": v for k, v in s.items()},
    "module.vit.": lambda s: {"state_dict": {f"module.vit.{k}": v for k, v in s.items()}},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_monais_vit_loads_in_any_wrapping(tmp_path, small_network, vit, wrapping):
    network = small_network()
    report = load_encoder(network, save(WRAPPINGS[wrapping](vit.state_dict()), tmp_path / "v.pt"))
    assert equal_to(network, vit)
    assert report.missing == []
    assert {k.split(".")[-2] for k in report.skipped} == {"norm_cross_attn"}
    assert len(report.loaded) == len(parameter_parts(network)["encoder"])


def test_safetensors_load_too(tmp_path, small_network, vit):
    network = small_network()
    safetensors.torch.save_file(vit.state_dict(), tmp_path / "v.safetensors")
    load_encoder(network, tmp_path / "v.safetensors")
    assert equal_to(network, vit)


def test_adapters_fusion_and_decoder_stay_as_they_were(tmp_path, small_network, vit):
    network, before = small_network(), small_network().state_dict()
    load_encoder(network, save(vit.state_dict(), tmp_path / "v.pt"))
    kept = [k for k in before if "lora" in k or k.startswith(("fusion", "decoder"))]
    assert all(torch.equal(network.state_dict()[k], before[k]) for k in kept)
    assert len(kept) > 20


# MONAI's sincos position embedding calls torch.meshgrid without indexing
@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")
def test_masked_autoencoder_loads_with_its_final_norm_and_without_its_decoder(
    tmp_path, small_network
):
    mae = MaskedAutoEncoderViT(**IMAGE, **SIZES, decoder_hidden_size=48, decoder_num_heads=4)
    torch.nn.init.normal_(mae.blocks[4].weight)
    network = small_network()
    report = load_encoder(network, save(mae.state_dict(), tmp_path / "m.pt"))
    assert report.missing == []
    assert "cls_token" in report.skipped
    assert torch.equal(network.encoder.norm.weight, mae.blocks[4].weight)
    blocks = network.encoder.blocks[2].attn.qkv.weight
    assert torch.equal(blocks, mae.blocks[2].attn.qkv.weight)


def test_unetr_gives_its_vit(tmp_path, small_network):
    sizes = {k: v for k, v in SIZES.items() if k != "num_layers"}
    unetr = UNETR(1, 2, (32, 32, 16), feature_size=4, **sizes)
    network = small_network(num_layers=12)
    report = load_encoder(network, save(unetr.state_dict(), tmp_path / "u.pt"))
    assert equal_to(network, unetr.vit)
    assert "decoder5.transp_conv.conv.weight" in report.skipped


def test_position_embeddings_of_another_grid_are_resampled(tmp_path, small_network):
    vit = ViT(in_channels=1, img_size=(48, 48, 48), patch_size=16, **SIZES)
    x = torch.arange(3.0).view(1, 1, 3, 1, 1).expand(1, 48, 3, 3, 3)  # grows along the first axis
    with torch.no_grad():
        vit.patch_embedding.position_embeddings.copy_(x.flatten(2).transpose(1, 2))
    network = small_network(img_size=(96, 48, 16))
    report = load_encoder(network, save(vit.state_dict(), tmp_path / "v.pt"))
    assert report.resampled == ([3, 3, 3], [6, 3, 1])
    grid = network.encoder.patch_embedding.position_embeddings[0, :, 0].view(6, 3, 1)
    assert torch.allclose(grid, torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2]).view(6, 1, 1))


def test_class_token_position_is_dropped(tmp_path, small_network, vit):
    state = vit.state_dict()
    key = "patch_embedding.position_embeddings"
    state[key] = torch.cat([torch.full((1, 1, 48), 99.0), state[key]], dim=1)
    network = small_network()
    load_encoder(network, save(state, tmp_path / "v.pt"))
    assert equal_to(network, vit)


def changed(state, key, value):
    state = dict(state)
    if value is None:
        del state[key]
    else:
        state[key] = value
    return state


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"hidden_size": 96}, r"has shape \[1, 4, 48\].*needs \[1, 4, 96\]"),
        ({"num_layers": 5}, "has 4 transformer blocks; the encoder has 5"),
        ({"num_layers": 3}, "has 4 transformer blocks; the encoder has 3"),
        ({"mlp_dim": 64}, r"linear1.*\[96, 48\].*\[64, 48\]"),
    ],
)
def test_vit_of_another_size_is_refused_in_one_sentence(
    tmp_path, small_network, vit, sizes, message
):
    path = save(vit.state_dict(), tmp_path / "v.pt")
    with pytest.raises(ValueError, match=message):
        load_encoder(small_network(**sizes), path)


def test_encoder_without_a_final_norm_keeps_its_own_and_reports_it(tmp_path, small_network, vit):
    state = {k: v for k, v in vit.state_dict().items() if not k.startswith("norm.")}
    report = load_encoder(small_network(), save(state, tmp_path / "v.pt"))
    assert report.missing == ["norm.weight", "norm.bias"]
    assert "2 missing (norm.weight, norm.bias)" in str(report)


def test_missing_block_weight_is_never_passed_over(tmp_path, small_network, vit):
    state = changed(vit.state_dict(), "blocks.1.attn.out_proj.bias", None)
    with pytest.raises(ValueError, match=r"blocks.1.attn.out_proj.bias"):
        load_encoder(small_network(), save(state, tmp_path / "v.pt"))


def test_a_refused_file_changes_nothing(tmp_path, small_network, vit):
    network, before = small_network(), small_network().state_dict()
    state = changed(vit.state_dict(), "blocks.3.mlp.linear2.bias", torch.zeros(7))
    with pytest.raises(ValueError, match="linear2"):
        load_encoder(network, save(state, tmp_path / "v.pt"))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_file_without_a_vit_is_refused(tmp_path, small_network):
    with pytest.raises(ValueError, match="expected the blocks of one MONAI ViT"):
        load_encoder(small_network(), save({"conv.weight": torch.zeros(1)}, tmp_path / "c.pt"))


def test_file_that_needs_unpickling_is_refused(tmp_path, small_network):
    with pytest.raises(ValueError, match="weights-only"):
        load_encoder(small_network(), save({"model": argparse.Namespace(a=1)}, tmp_path / "p.pt"))


@pytest.mark.parametrize("name", ["v.pt", "v.safetensors"])
def test_broken_file_is_refused(tmp_path, small_network, name):
    (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(ValueError, match="not a readable"):
        load_encoder(small_network(), tmp_path / name)


def test_baseline_refuses_a_pretrained_encoder(small_network):
    with pytest.raises(ValueError, match=r"baseline.*finetune"):
        start_encoder(small_network(regime="baseline"), "vit.pt")


@pytest.mark.parametrize("pretrained", [None, "none"])
def test_missing_pretrained_encoder_is_said(small_network, caplog, pretrained):
    start_encoder(small_network(), pretrained)
    assert "random weights" in caplog.text


def test_loaded_encoder_is_said(tmp_path, small_network, vit, caplog):
    caplog.set_level(logging.INFO)
    start_encoder(small_network(), str(save(vit.state_dict(), tmp_path / "v.pt")))
    assert "v.pt: 49 keys loaded, 8 skipped, 0 missing" in caplog.text
