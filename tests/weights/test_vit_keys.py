import pytest
import torch

from lora_ext.weights.layouts import check_keys, vit_tensors

ENCODER = {"blocks.0.norm1.weight": torch.zeros(2), "blocks.0.attn.qkv.weight": torch.zeros(6, 2)}


def test_prefix_is_taken_off_and_other_keys_are_listed():
    tensors = {f"module.vit.{k}": v for k, v in ENCODER.items()} | {
        "module.out.bias": torch.ones(1)
    }
    inside, outside = vit_tensors(tensors, "v.pt")
    assert inside == ENCODER
    assert outside == ["module.out.bias"]


def test_masked_autoencoders_last_block_entry_is_its_final_norm():
    inside, _ = vit_tensors({**ENCODER, "blocks.1.bias": torch.ones(2)}, "v.pt")
    assert inside.keys() == {*ENCODER, "norm.bias"}


def test_decoder_blocks_are_not_taken_for_the_encoders():
    tensors = {**ENCODER, "decoder_blocks.0.norm1.weight": torch.ones(1)}
    inside, _ = vit_tensors(tensors, "v.pt")
    assert torch.equal(inside["blocks.0.norm1.weight"], ENCODER["blocks.0.norm1.weight"])


@pytest.mark.parametrize(
    "tensors",
    [
        {"conv.weight": torch.zeros(1)},
        {f"{network}.{k}": v for network in ("teacher", "student") for k, v in ENCODER.items()},
    ],
    ids=["none", "two"],
)
def test_file_with_other_than_one_vit_is_refused(tensors):
    with pytest.raises(ValueError, match=r"c\.pt: expected the blocks of one MONAI ViT"):
        vit_tensors(tensors, "c.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.0.attn.qkv.weight": None}, r"lacks 1 .*'blocks.0.attn.qkv.weight'"),
        ({"blocks.0.attn.qkv.weight": torch.zeros(6, 3)}, r"shape \[6, 3\].*needs \[6, 2\]"),
        ({"blocks.0.attn.qkv.bias": torch.zeros(6)}, r"have a qkv bias .*none"),
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
