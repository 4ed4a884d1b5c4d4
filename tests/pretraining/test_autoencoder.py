"""The auto-encoder, and its encoder on whole volumes."""

import pytest
import torch

from lora_ext.networks.encoder import ChannelEncoder
from lora_ext.pretraining import MaskedPatchLoss, VolumeAutoEncoder, VolumeEncoder

SIZES = ("hidden_size", "mlp_dim", "num_layers", "num_heads")


def test_three_quarters_are_hidden_and_every_patch_is_predicted(autoencoder, volumes):
    patches, mask = autoencoder()(volumes)
    assert patches.shape == (2, 4, 4096)
    assert mask.sum(dim=1).tolist() == [3, 3]


def test_hidden_voxels_do_not_reach_the_prediction(autoencoder, volumes):
    network = autoencoder().eval()
    torch.manual_seed(7)
    patches, mask = network(volumes)
    changed = volumes.clone()
    for case, patch in mask.nonzero().tolist():
        x, y = divmod(patch, 2)
        changed[case, :, 16 * x : 16 * x + 16, 16 * y : 16 * y + 16] = 5.0
    torch.manual_seed(7)
    assert torch.equal(network(changed)[0], patches)
    torch.manual_seed(7)
    assert not torch.equal(network(volumes + 1)[0], patches)


def test_mixed_precision_gives_nearly_the_same(autoencoder, volumes):
    network, results = autoencoder(), []
    for enabled in (False, True):
        torch.manual_seed(2)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            results.append(MaskedPatchLoss()(network(volumes), volumes))
    results[1].backward()
    assert results[1].item() == pytest.approx(results[0].item(), rel=0.02)


def test_every_parameter_gets_a_gradient(autoencoder, volumes):
    """Or DistributedDataParallel would need its unused-parameter workaround."""
    network = autoencoder()
    MaskedPatchLoss()(network(volumes), volumes).backward()
    without = [k for k, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert not any("cross_attn" in k for k in network.state_dict())


def test_its_encoder_has_the_shapes_of_the_segmentation_networks(autoencoder):
    network = autoencoder()
    sizes = {k: network.config[k] for k in SIZES}
    ours = ChannelEncoder(["c"], network.config["img_size"], **sizes).state_dict()
    theirs = {k.replace("blocks.4.", "norm."): v for k, v in network.state_dict().items()}
    assert {k: v.shape for k, v in ours.items()} == {k: theirs[k].shape for k in ours}


def test_default_encoder_is_vit_base_of_the_paper():
    with torch.device("meta"):
        network = VolumeAutoEncoder()
    encoder = [p for k, p in network.named_parameters() if k.startswith(("patch_emb", "blocks."))]
    assert sum(p.numel() for p in encoder) == 88_322_304


def test_learns_to_predict_what_it_cannot_see(autoencoder, volumes):
    network, loss = autoencoder(), MaskedPatchLoss()
    optimizer = torch.optim.AdamW(network.param_groups(0.01), lr=3e-3)
    first = loss(network(volumes), volumes).item()
    for _ in range(150):
        optimizer.zero_grad()
        loss(network(volumes), volumes).backward()
        optimizer.step()
    assert loss(network(volumes), volumes).item() < 0.35 * first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"img_size": (30, 32, 16)}, r"multiples of 16.*got \[30, 32, 16\]"),
        ({"hidden_size": 64, "num_heads": 4}, "hidden_size: expected a multiple of 6.*got 64"),
        ({"decoder_hidden_size": 24, "decoder_num_heads": 5}, "decoder_num_heads, got 24 with 5"),
        ({"masking_ratio": 1.0}, "masking_ratio: expected a number between 0 and 1.*got 1.0"),
        ({"masking_ratio": 0.9}, "at least one of 4 patches visible, got 0.9"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(autoencoder, arguments, message):
    with pytest.raises(ValueError, match=message):
        autoencoder(**arguments)


@pytest.fixture
def pair(autoencoder):
    """An auto-encoder and its encoder on whole volumes, with the same weights."""
    network = autoencoder().eval()
    encoder = VolumeEncoder(**network.config).eval()
    encoder.load_state_dict(network.state_dict(), strict=True)
    return network, encoder


def test_features_lie_where_their_patches_lie(pair, volumes):
    """A change in one patch moves that patch's features most."""
    _, encoder = pair
    changed = volumes.clone()
    changed[:, :, 16:, :16] += 1
    moved = (encoder(changed) - encoder(volumes)).norm(dim=1)
    assert moved.shape == (2, 2, 2, 1)
    assert moved.flatten(1).argmax(dim=1).tolist() == [2, 2]


def test_features_are_what_the_auto_encoder_sees_when_nothing_is_hidden(pair, volumes):
    network, encoder = pair
    seen = []
    network.decoder_embed.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    network(volumes, masking_ratio=0.0)
    # the auto-encoder shuffles its visible patches, so they are compared without their order
    ours, theirs = encoder(volumes).flatten(2).sum(dim=2), seen[0][:, 1:].sum(dim=1)
    torch.testing.assert_close(ours, theirs)


def test_nothing_is_drawn_at_random(pair, volumes):
    _, encoder = pair
    assert torch.equal(encoder(volumes), encoder(volumes))


def test_auto_encoder_of_it_has_the_very_same_parameters(pair, volumes):
    network, encoder = pair
    own = encoder.autoencoder()
    for mine, theirs in zip(own.parameters(), encoder.parameters(), strict=True):
        assert mine is theirs
    for some in (network, own):
        torch.manual_seed(3)
        patches, mask = some(volumes)
        assert mask.sum(dim=1).tolist() == [3, 3]
        torch.testing.assert_close(patches.sum(), network_sum(network, volumes))


def network_sum(network, volumes):
    torch.manual_seed(3)
    return network(volumes)[0].sum()


def test_it_compiles_to_torchscript(pair, volumes):
    _, encoder = pair
    torch.testing.assert_close(torch.jit.script(encoder)(volumes), encoder(volumes))


def test_its_features_fit_the_segmentation_networks_grid(pair):
    _, encoder = pair
    ours = ChannelEncoder(["c"], encoder.config["img_size"], hidden_size=48, num_heads=4)
    assert encoder(torch.rand(1, 1, 32, 32, 16))[0, 0].numel() == ours.patch_embedding.n_patches
