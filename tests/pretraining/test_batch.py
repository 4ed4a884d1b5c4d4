import torch
from monai.data import MetaTensor

from lora_ext.pretraining import volume_as_target


def test_volume_is_its_own_target_and_a_plain_tensor():
    batch = {"image": MetaTensor(torch.ones(2, 1, 16, 16, 16)), "case": ["a", "b"]}
    volume, target = volume_as_target(batch, device="cpu")
    assert volume is target
    assert type(volume) is torch.Tensor
