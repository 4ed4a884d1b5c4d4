import pytest
import torch

from lora_ext import load_encoder
from lora_ext.weights import EncoderReport


def test_adapters_fusion_and_decoder_stay_as_they_were(small_network, vit, torch_file):
    network, before = small_network(), small_network().state_dict()
    load_encoder(network, torch_file(vit.state_dict()))
    kept = [k for k in before if "lora" in k or k.startswith(("fusion", "decoder"))]
    assert all(torch.equal(network.state_dict()[k], before[k]) for k in kept)
    assert len(kept) > 20


def test_encoder_without_a_final_norm_keeps_its_own_and_reports_it(small_network, vit, torch_file):
    state = {k: v for k, v in vit.state_dict().items() if not k.startswith("norm.")}
    report = load_encoder(small_network(), torch_file(state))
    assert report.missing == ["norm.weight", "norm.bias"]
    assert "2 missing (norm.weight, norm.bias)" in str(report)


def test_a_refused_file_changes_nothing(small_network, vit, torch_file):
    network, before = small_network(), small_network().state_dict()
    state = {**vit.state_dict(), "blocks.3.mlp.linear2.bias": torch.zeros(7)}
    with pytest.raises(ValueError, match="linear2"):
        load_encoder(network, torch_file(state))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_another_grids_position_embeddings_are_resampled_and_said(
    small_network, build_vit, torch_file
):
    vit = build_vit(img_size=(48, 48, 48))
    network = small_network(img_size=(96, 48, 16))
    report = load_encoder(network, torch_file(vit.state_dict()))
    assert report.resampled == ([3, 3, 3], [6, 3, 1])
    assert "position embeddings resampled from [3, 3, 3] patches to [6, 3, 1]" in str(report)


def test_the_sources_image_size_can_be_told(small_network, build_vit, torch_file):
    path = torch_file(build_vit(img_size=(64, 32, 32)).state_dict())
    with pytest.raises(ValueError, match="source_img_size"):
        load_encoder(small_network(), path)
    report = load_encoder(small_network(), path, source_img_size=(64, 32, 32))
    assert report.resampled == ([4, 2, 2], [2, 2, 1])


def test_class_token_position_is_dropped(small_network, vit, torch_file, holds):
    state = vit.state_dict()
    key = "patch_embedding.position_embeddings"
    state[key] = torch.cat([torch.full((1, 1, 48), 99.0), state[key]], dim=1)
    network = small_network()
    load_encoder(network, torch_file(state))
    assert holds(network, vit)


def test_report_names_at_most_five_kinds_of_skipped_keys():
    kinds = ["cls_token", "decoder_embed", "decoder_pred", "mask_tokens", "head.fc", "head.norm"]
    skipped = [f"blocks.{i}.norm_cross_attn.{k}" for i in range(4) for k in ("weight", "bias")]
    report = EncoderReport("v.pt", ["norm.weight"], skipped + [f"{k}.weight" for k in kinds], [])
    assert str(report) == (
        "encoder loaded from v.pt: 1 keys loaded, 14 skipped (blocks.*.norm_cross_attn, cls_token, "
        "decoder_embed, decoder_pred, mask_tokens, and 2 more kinds), 0 missing"
    )
