import pytest
import torch
from monai.inferers import SimpleInferer, SlidingWindowInferer

from lora_ext.acceleration import CPUPrecisionInferer
from lora_ext.acceleration import cpu as precision


@pytest.fixture
def has_bfloat16(monkeypatch):
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: True)


def test_network_runs_in_bfloat16_and_gives_float32(has_bfloat16):
    seen = []
    network = torch.nn.Conv3d(1, 2, 3, padding=1)
    network.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    output = CPUPrecisionInferer(SimpleInferer(), "cpu", True)(torch.rand(1, 1, 8, 8, 8), network)
    assert seen == [torch.bfloat16]
    assert output.dtype == torch.float32
    output.sum().backward()
    assert network.weight.grad.dtype == network.weight.dtype == torch.float32


def test_windows_are_put_together_in_float32_close_to_the_plain_result(has_bfloat16):
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 2, 3, padding=1)
    inferer = SlidingWindowInferer((16, 16, 16), overlap=0.5, mode="gaussian")
    image = torch.rand(1, 1, 24, 24, 24)
    with torch.no_grad():
        plain = inferer(image, network)
        lower = CPUPrecisionInferer(inferer, "cpu", True)(image, network)
    assert lower.dtype == torch.float32
    assert not torch.equal(lower, plain)
    assert torch.allclose(lower, plain, atol=0.02)


@pytest.mark.parametrize(("device", "amp"), [("cpu", False), ("cuda", True)])
def test_elsewhere_it_is_the_other_inferer(has_bfloat16, device, amp):
    network, image = torch.nn.Conv3d(1, 2, 3), torch.rand(1, 1, 8, 8, 8)
    output = CPUPrecisionInferer(SimpleInferer(), device, amp)(image, network)
    assert torch.equal(output, network(image))


def test_cpu_without_bfloat16_instructions_keeps_float32(monkeypatch):
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: False)
    assert not CPUPrecisionInferer(SimpleInferer(), "cpu", True).active


def test_output_of_several_parts_is_left_as_it_is(has_bfloat16):
    parts = CPUPrecisionInferer(SimpleInferer(), "cpu", True)(torch.rand(2), lambda x: (x, 1))
    assert isinstance(parts, tuple)
