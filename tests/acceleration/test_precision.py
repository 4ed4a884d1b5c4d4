import pytest
import torch
from monai.inferers import SlidingWindowInferer

from lora_ext.acceleration import accelerate, device


@pytest.fixture
def network(monkeypatch):
    """A function that builds a network for a CPU with bfloat16 instructions, or without."""

    def build(amp, fast=True, device="cpu"):
        monkeypatch.setattr("lora_ext.acceleration.has_fast_bfloat16", lambda device: fast)
        torch.manual_seed(0)
        return accelerate(torch.nn.Conv3d(1, 2, 3, padding=1), device, "off", amp=amp)

    return build


IMAGE = torch.rand(1, 1, 24, 24, 24, generator=torch.Generator().manual_seed(0))


def test_network_runs_in_bfloat16_and_gives_float32(network):
    seen, lower = [], network(amp=True)
    convolve = torch.nn.Conv3d._conv_forward
    lower._conv_forward = lambda *a: seen.append(convolve(lower, *a)) or seen[-1]
    output = lower(IMAGE)
    assert [made.dtype for made in seen] == [torch.bfloat16]
    assert output.dtype == torch.float32
    output.sum().backward()
    assert lower.weight.grad.dtype == lower.weight.dtype == torch.float32


def test_windows_are_put_together_in_float32_close_to_the_plain_result(network):
    inferer = SlidingWindowInferer((16, 16, 16), overlap=0.5, mode="gaussian")
    with torch.no_grad():
        plain, lower = inferer(IMAGE, network(amp=False)), inferer(IMAGE, network(amp=True))
    assert lower.dtype == torch.float32
    assert not torch.equal(lower, plain)
    assert torch.allclose(lower, plain, atol=0.02)


@pytest.mark.parametrize(("amp", "fast"), [(False, True), (True, False)])
def test_network_stays_in_float32_without_the_wish_or_the_instructions(network, amp, fast):
    plain = torch.nn.functional.conv3d(
        IMAGE, network(amp, fast).weight, network(amp, fast).bias, padding=1
    )
    assert torch.equal(network(amp, fast)(IMAGE), plain)


def test_output_of_several_parts_is_left_as_it_is():
    class Parts(torch.nn.Module):
        def forward(self, x):
            return x, 1

    parts = Parts()
    device.run_in_bfloat16(parts, "cpu")
    assert isinstance(parts(torch.rand(2)), tuple)


def test_a_device_of_another_kind_has_no_fast_bfloat16():
    assert not device.has_fast_bfloat16("meta")


def test_training_in_bfloat16_learns_what_one_in_float32_does(small_network, monkeypatch):
    monkeypatch.setattr("lora_ext.acceleration.has_fast_bfloat16", lambda device: True)
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(1, 2, 32, 32, 16, generator=generator)
    truth = (image[:, [0, 1, 0]] > 0).float()
    curves = {}
    for amp in (False, True):
        trained = accelerate(small_network(), "cpu", "off", amp=amp)
        optimizer = torch.optim.Adam(trained.trainable_parameters(), lr=1e-3)
        curves[amp] = []
        for _ in range(6):
            optimizer.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(trained(image), truth)
            loss.backward()
            optimizer.step()
            curves[amp].append(loss.item())
    assert curves[True] == pytest.approx(curves[False], rel=0.05)
    assert curves[True][-1] < 0.9 * curves[True][0]
