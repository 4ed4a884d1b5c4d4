"""On every device the network computes what the CPU does in double precision.

The cases named ``cpu`` run everywhere and check this file itself; those named ``cuda`` run where
there is such a device. Tolerances are shares of the largest value that is expected.
"""

from copy import deepcopy

import pytest
import torch
from monai.inferers import SlidingWindowInferer

from lora_ext.acceleration import accelerate, has_fast_bfloat16
from lora_ext.training import RegionDiceCELoss

NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=NO_CUDA)]
FORMS = {"plain": "off", "accelerated": "on"}
# About ten times the error on a CPU in float32, and three to five times that in bfloat16, whose
# rounding (4e-3) a gradient carries through every layer twice.
OUTPUT_TOLERANCE = {"float32": 1e-5, "bfloat16": 0.01}
GRADIENT_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.3}
LEARNING_RATE = 1e-3

pytestmark = [
    pytest.mark.parametrize("device", DEVICES),
    pytest.mark.parametrize("form", FORMS),
    pytest.mark.parametrize("precision", OUTPUT_TOLERANCE),
]


@pytest.fixture(autouse=True)
def ieee_float32():
    """Keep cuDNN from rounding float32 convolutions to TF32, which is a thousand times coarser."""
    before = torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    yield
    torch.backends.cudnn.conv.fp32_precision = before


@pytest.fixture
def pair(small_network, wake_adapters, device, form, precision):
    """The network in double precision on the CPU, and the same weights as the test wants them."""
    if precision == "bfloat16" and not has_fast_bfloat16(device):
        pytest.skip(f"{device} has no bfloat16 instructions")
    expected = wake_adapters(small_network()).double()
    found = deepcopy(expected).float().to(device)
    return expected, accelerate(found, device, FORMS[form], amp=precision == "bfloat16")


@pytest.fixture
def batch():
    """An image (2, 2, 32, 32, 16) and its regions (2, 3, 32, 32, 16), in double precision."""
    torch.manual_seed(2)
    image = torch.randn(2, 2, 32, 32, 16, dtype=torch.float64)
    return image, (torch.rand(2, 3, 32, 32, 16) > 0.7).double()


def assert_near(found, expected, tolerance):
    """The root mean square difference is within a share of the largest expected value."""
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    difference = (found.double().cpu() - expected).square().mean().sqrt()
    assert difference <= tolerance * expected.abs().max()


def test_forward(pair, batch, device, precision):
    expected, found = (network.eval() for network in pair)
    with torch.no_grad():
        output = found(batch[0].float().to(device))
        assert_near(output, expected(batch[0]), OUTPUT_TOLERANCE[precision])


def test_backward(pair, batch, device, precision):
    expected, found = pair
    image, regions = batch
    (expected(image) * regions).mean().backward()
    (found(image.float().to(device)) * regions.to(device)).mean().backward()
    gradients = dict(found.named_parameters())
    for name, parameter in expected.named_parameters():
        if parameter.grad is None:
            assert gradients[name].grad is None
        else:
            assert_near(gradients[name].grad, parameter.grad, GRADIENT_TOLERANCE[precision])


def test_training_step(pair, batch, device, precision):
    expected, found = pair
    losses, steps = [], []
    for network, where, dtype in ((expected, "cpu", torch.float64), (found, device, torch.float32)):
        image, regions = (tensor.to(where, dtype) for tensor in batch)
        optimizer = torch.optim.SGD(network.trainable_parameters(), lr=LEARNING_RATE)
        before = [p.detach().clone() for p in network.trainable_parameters()]
        loss = RegionDiceCELoss()(network(image), regions)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        steps.append(
            [p.detach() - b for p, b in zip(network.trainable_parameters(), before, strict=True)]
        )
    assert losses[1] == pytest.approx(losses[0], rel=OUTPUT_TOLERANCE[precision])
    # a step is the difference of two weights of about 1, so float32 knows it to about 1e-7
    for step, wanted in zip(steps[1], steps[0], strict=True):
        difference = (step.double().cpu() - wanted).square().mean().sqrt()
        assert difference <= GRADIENT_TOLERANCE[precision] * wanted.abs().max() + 1e-7


def test_sliding_window_inference(pair, device, precision):
    expected, found = (network.eval() for network in pair)
    torch.manual_seed(3)
    image = torch.randn(1, 2, 48, 40, 24, dtype=torch.float64)
    windows = SlidingWindowInferer((32, 32, 16), sw_batch_size=4, overlap=0.25, mode="gaussian")
    with torch.inference_mode():
        output = windows(image.float().to(device), found)
        assert output.device.type == device
        assert_near(output, windows(image, expected), OUTPUT_TOLERANCE[precision])
