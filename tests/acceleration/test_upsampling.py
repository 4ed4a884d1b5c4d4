import pytest
import torch
from torch.nn import functional

from lora_ext.acceleration.upsampling import compose_kernels, composing_pays, convolve_upsampled

SIZES = [(1, 1, 1), (1, 2, 3), (3, 5, 4), (6, 2, 7)]


def in_two_steps(x, up, kernel):
    return functional.conv3d(
        functional.conv_transpose3d(x, up, stride=2), kernel, padding=kernel.shape[2] // 2
    )


def tensors(batch, size, width=5, mid=4, out=3, kernel=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, width, *size), (width, mid, 2, 2, 2), (out, mid, kernel, kernel, kernel)]
    return [
        torch.randn(shape, generator=generator, dtype=dtype, requires_grad=True) for shape in shapes
    ]


@pytest.mark.parametrize("kernel", [3, 1])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 2])
def test_one_step_equals_the_two_in_output_and_gradients(kernel, size, batch):
    inputs = tensors(batch, size, kernel=kernel)
    one, two = convolve_upsampled(*inputs), in_two_steps(*inputs)
    assert one.shape == (batch, 3, *(2 * s for s in size))
    torch.testing.assert_close(one, two)
    grad = torch.randn_like(one)
    gradients = torch.autograd.grad(one, inputs, grad)
    for ours, peer in zip(gradients, torch.autograd.grad(two, inputs, grad), strict=True):
        torch.testing.assert_close(ours, peer)


@pytest.mark.parametrize("kernel", [3, 1])
def test_one_step_keeps_channels_last(kernel):
    x, up, kernel = tensors(2, (3, 5, 4), kernel=kernel, dtype=torch.float32)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    out = convolve_upsampled(x, up, kernel)
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(out, in_two_steps(x, up, kernel))


def test_part_of_a_kernels_channels_can_be_composed():
    x, up, kernel = tensors(1, (3, 5, 4))
    wider = torch.randn(3, 6, 3, 3, 3, dtype=torch.float64)
    wider[:, :4] = kernel.detach()
    torch.testing.assert_close(convolve_upsampled(x, up, wider[:, :4]), in_two_steps(x, up, kernel))


@pytest.mark.parametrize(("kernel", "composed"), [(3, 4), (1, 2)])
def test_composed_kernel_has_the_documented_shape(kernel, composed):
    _, up, kernel = tensors(1, (1, 1, 1), kernel=kernel)
    assert compose_kernels(up, kernel).shape == (5, 3, composed, composed, composed)


@pytest.mark.parametrize("kernel", [3, 1])
def test_kernels_are_composed_in_float32_under_bfloat16_autocast(kernel):
    _, up, kernel = tensors(1, (1, 1, 1), kernel=kernel, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        composed = compose_kernels(up, kernel)
    assert composed.dtype == torch.float32
    torch.testing.assert_close(composed, compose_kernels(up, kernel))


def test_volume_itself_follows_autocast():
    inputs = tensors(1, (3, 5, 4), dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = convolve_upsampled(*inputs)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), in_two_steps(*inputs), rtol=0.05, atol=0.5)


@pytest.mark.parametrize(
    ("width", "mid", "size", "pays"),
    [
        (128, 64, (64, 64, 24), True),  # the paper's finest level, coarse volume
        (256, 128, (32, 32, 12), True),
        (768, 512, (8, 8, 3), False),  # its coarsest
    ],
)
def test_composing_pays_at_the_papers_finer_levels_only(width, mid, size, pays):
    x = torch.empty(1, width, *size, device="meta")
    up = torch.empty(width, mid, 2, 2, 2, device="meta")
    kernel = torch.empty(mid, 2 * mid, 3, 3, 3, device="meta")
    assert composing_pays(x, up, kernel) is pays


def test_composing_never_pays_where_the_product_itself_is_larger():
    up, kernel = torch.empty(64, 16, 2, 2, 2, device="meta"), torch.empty(8, 32, 3, 3, 3)
    assert not composing_pays(torch.empty(4, 64, 512, 512, 512, device="meta"), up, kernel)
