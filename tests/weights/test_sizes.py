import pytest
import torch

from lora_ext import load_encoder
from lora_ext.weights.sizes import check_keys, vit_sizes


def test_sizes_are_read_off_the_tensors(vit):
    assert vit_sizes(vit.state_dict()) == {
        "hidden size": 48,
        "depth": 4,
        "MLP width": 96,
        "patch embedding": "conv",
        "patch size": [16, 16, 16],
        "input channels": 1,
        "qkv bias": False,
        "prefix tokens": 0,
    }


@pytest.mark.parametrize(
    ("theirs", "ours", "sentence"),
    [
        ({}, {"hidden_size": 96}, r"hidden size 48; this network has 96 \(--hidden_size\)"),
        ({}, {"num_layers": 5}, r"depth 4; this network has 5 \(--num_layers\)"),
        ({}, {"num_layers": 3}, r"depth 4; this network has 3 \(--num_layers\)"),
        ({}, {"mlp_dim": 64}, r"MLP width 96; this network has 64 \(--mlp_dim\)"),
        (
            {"patch_size": 8},
            {},
            r"patch size \[8, 8, 8\]; this network has \[16, 16, 16\] \(voxels",
        ),
        ({"in_channels": 4}, {}, r"input channels 4; this network has 1 \(each image channel is"),
        (
            {"hidden_size": 96},
            {"num_layers": 5},
            r"hidden size 96, depth 4; this network has 48 \(--hidden_size\), 5 \(--num_layers\)",
        ),
        ({"qkv_bias": True}, {}, r"qkv bias True; this network has False \(--qkv_bias\)"),
        ({}, {"num_prefix_tokens": 2}, r"prefix tokens 0; this network has 2 \(--num_prefix_tok"),
    ],
)
def test_vit_of_another_size_is_refused_in_one_sentence_that_says_what_differs(
    small_network, build_vit, torch_file, theirs, ours, sentence
):
    path = torch_file(build_vit(**theirs).state_dict())
    with pytest.raises(ValueError, match=rf"vit\.pt: {sentence}") as caught:
        load_encoder(small_network(**ours), path)
    assert "\n" not in str(caught.value)


def test_two_dimensional_vit_is_refused(small_network, build_vit, torch_file):
    flat = build_vit(img_size=(32, 32), spatial_dims=2)
    with pytest.raises(ValueError, match=r"patch size \[16, 16\]; this network has \[16, 16, 16\]"):
        load_encoder(small_network(), torch_file(flat.state_dict()))


ENCODER = {"blocks.0.norm1.weight": torch.zeros(2), "blocks.0.attn.qkv.weight": torch.zeros(6, 2)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.0.attn.qkv.weight": None}, r"lacks 1 .*'blocks.0.attn.qkv.weight'"),
        ({"blocks.0.attn.qkv.weight": torch.zeros(6, 3)}, r"shape \[6, 3\].*needs \[6, 2\]"),
        ({"blocks.0.attn.qkv.bias": torch.zeros(6)}, r"no place for, .*'blocks.0.attn.qkv.bias'"),
        ({"blocks.0.norm3.bias": torch.zeros(6)}, r"no place for, .*'blocks.0.norm3.bias'"),
        ({"blocks.0.attn.out_proj.lora_A": torch.zeros(6)}, r"no place for, .*lora_A"),
    ],
)
def test_block_weight_is_never_passed_over(change, message):
    source = {k: v for k, v in {**ENCODER, **change}.items() if v is not None}
    with pytest.raises(ValueError, match=f"^v.pt: .*{message}"):
        check_keys(source, ENCODER, "v.pt")


@pytest.mark.parametrize(
    "key", ["blocks.0.norm_cross_attn.weight", "blocks.0.cross_attn.to_q.weight", "head.weight"]
)
def test_what_no_block_uses_may_be_there(key):
    check_keys({**ENCODER, key: torch.zeros(1)}, ENCODER, "v.pt")
