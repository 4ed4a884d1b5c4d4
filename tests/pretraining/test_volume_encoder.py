import pytest
import torch

from lora_ext.networks.encoder import ChannelEncoder
from lora_ext.pretraining import VolumeAutoEncoder, VolumeEncoder


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
    assert type(own) is VolumeAutoEncoder
    assert type(encoder) is VolumeEncoder
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
