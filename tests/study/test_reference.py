"""Reference networks: shapes, gradients, and what the pipeline asks of a network."""

import json

import pytest
import torch
from monai.networks.nets import UNETR, SegResNet

from lora_ext.study import REFERENCES, ReferenceNetwork
from lora_ext.study.reference import dynunet_plan
from lora_ext.training import BestModel
from lora_ext.weights import load_model, start_encoder

SMALL = {"feature_size": 4, "hidden_size": 24, "mlp_dim": 32, "num_heads": 2}


def build(name, channels=2, regions=3, img_size=(32, 32, 16), **more):
    torch.manual_seed(0)
    return ReferenceNetwork(name, channels, regions, img_size, **{**SMALL, **more})


@pytest.mark.parametrize("name", REFERENCES)
def test_logits_have_the_image_s_size_and_every_parameter_learns(name):
    network = build(name)
    image = torch.randn(1, 2, 32, 32, 16)
    logits = network(image)
    assert logits.shape == (1, 3, 32, 32, 16)
    (logits**2).sum().backward()
    assert all(p.grad is not None for p in network.trainable_parameters())
    assert len(network.trainable_parameters()) == len(list(network.parameters()))


@pytest.mark.parametrize("name", REFERENCES)
def test_a_network_is_saved_and_loaded_as_the_bundles_do(name, tmp_path):
    network, other = build(name), build(name)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.5)
    state = type("State", (), {"best_metric_epoch": 1, "epoch": 1})
    BestModel(network, tmp_path).save_if_best(type("Engine", (), {"state": state}))
    assert {p.name for p in tmp_path.iterdir()} == {"model.pt", "network.json"}
    load_model(other, tmp_path / "model.pt")
    for key, value in network.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    again = ReferenceNetwork.from_config(
        json.loads((tmp_path / "network.json").read_text(encoding="utf-8"))
    )
    assert again.config == network.config
    start_encoder(network, None)


def test_sizes_of_another_backbone_are_not_stock_unetrs():
    given = {**SMALL, "feature_size": None, "num_heads": [3, 6, 12, 24]}
    network = ReferenceNetwork("unetr", 2, 3, (32, 32, 16), **given)
    assert network.config["feature_size"] == 64
    assert network.network.vit.blocks[0].attn.num_heads == 12  # MONAI's own default


def test_a_model_of_another_reference_is_refused(tmp_path):
    network = build("segresnet")
    state = type("State", (), {"best_metric_epoch": 1, "epoch": 1})
    BestModel(network, tmp_path).save_if_best(type("Engine", (), {"state": state}))
    with pytest.raises(ValueError, match="segresnet"):
        load_model(build("dynunet"), tmp_path / "model.pt")


def test_stock_networks_have_monai_s_number_of_parameters():
    def count(network):
        return sum(p.numel() for p in network.parameters())

    with torch.device("meta"):
        stock = SegResNet(in_channels=4, out_channels=3, init_filters=16)
        assert count(ReferenceNetwork("segresnet", 4, 3, (128, 128, 48))) == count(stock)
        unetr = UNETR(4, 3, (128, 128, 48), feature_size=64)
        unused = sum(p.numel() for n, p in unetr.named_parameters() if "norm_cross_attn" in n)
        ours = count(ReferenceNetwork("unetr", 4, 3, (128, 128, 48)))
        assert ours == count(unetr) - unused
        assert unused == 12 * 2 * 768


def test_sizes_reach_unetr_alone():
    assert build("unetr").config["feature_size"] == 4
    assert "feature_size" not in build("dynunet").config


@pytest.mark.parametrize(
    ("size", "spacing", "strides"),
    [
        # 128 is halved five times (nnU-Net's limit, and 8 -> 4), 48 three times (6 < 8)
        (
            (128, 128, 48),
            (1, 1, 1),
            [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 1], [2, 2, 1]],
        ),
        # 1.5 mm is 2.5 times 0.6 mm: the third axis waits for the first pooling
        ((32, 32, 16), (0.6, 0.6, 1.5), [[1, 1, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2]]),
        ((176, 16, 16), (1, 1, 1), [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 1, 1], [2, 1, 1]]),
    ],
)
def test_dynunet_pools_as_nnunet_does(size, spacing, strides):
    kernels, planned = dynunet_plan(size, spacing)
    assert planned == strides
    assert len(kernels) == len(strides)
    anisotropic = max(spacing) > 2 * min(spacing)
    assert kernels[0] == ([3, 3, 1] if anisotropic else [3, 3, 3])
    assert kernels[-1] == [3, 3, 3]


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"'swin'; expected one of segresnet"):
        build("swin")
