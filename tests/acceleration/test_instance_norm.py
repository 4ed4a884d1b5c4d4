import itertools

import pytest
import torch
from torch.nn import functional

from lora_ext.acceleration.instance_norm import SLOPE, instance_norm

LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]
# with the sum or without; with the activation or (slope 1) without
CASES = [(False, SLOPE), (True, SLOPE), (False, 1.0), (True, 1.0)]


def plain(x, residual=None, slope=SLOPE):
    y = functional.instance_norm(x)
    return functional.leaky_relu(y if residual is None else y + residual, slope)


def features(*shape, layout=torch.channels_last_3d, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    return x.contiguous(memory_format=layout).requires_grad_()


def step(*shape, add, **options):
    """An input, a residual or none, and a gradient of the output."""
    x, residual, grad = (features(*shape, seed=seed, **options) for seed in range(3))
    return x, residual if add else None, grad.detach()


def run(function, x, residual, slope, grad):
    """The output and the gradients of x and of a residual that wants one."""
    inputs = [t for t in (x, residual) if t is not None and t.requires_grad]
    y = function(x, residual, slope)
    return [y.detach(), *torch.autograd.grad(y, inputs, grad)]


def kept_sizes(function):
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        function()
    return [t.numel() for t in {t.data_ptr(): t for t in kept}.values()]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("add", "slope"), CASES)
def test_gradients_are_those_of_finite_differences(layout, batch, add, slope):
    shape = (batch, 3, 3, 2, 4)
    x = features(*shape, layout=layout, dtype=torch.float64)
    residual = features(*shape, layout=layout, dtype=torch.float64, seed=1) if add else None
    assert torch.autograd.gradcheck(lambda *inputs: instance_norm(*inputs, slope), (x, residual))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("add", "slope"), CASES)
def test_output_and_gradients_are_those_of_the_plain_operations(dtype, layout, batch, add, slope):
    shape = (batch, 5, 6, 7, 4)
    x, residual, grad = step(*shape, layout=layout, dtype=dtype, add=add)
    ours = run(instance_norm, x, residual, slope, grad)
    for one, other in zip(ours, run(plain, x, residual, slope, grad), strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, other)


def test_defaults_are_no_residual_and_monais_slope():
    x = features(2, 3, 4, 4, 4)
    torch.testing.assert_close(instance_norm(x), functional.leaky_relu(plain(x, slope=1.0), 0.01))


def test_every_image_is_normalised_on_its_own():
    x = features(3, 4, 4, 5, 6)
    alone = torch.cat([instance_norm(image) for image in x.split(1)])
    torch.testing.assert_close(instance_norm(x), alone)


def test_constant_channel_gives_zeros_and_a_finite_gradient():
    x = torch.full((1, 2, 4, 4, 4), 3.0, requires_grad=True)
    y = instance_norm(x)
    y.backward(torch.randn_like(y))
    torch.testing.assert_close(y, torch.zeros_like(y), rtol=0, atol=1e-3)
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mean", [0.0, 20.0])
@pytest.mark.parametrize(("add", "slope"), CASES)
def test_bfloat16_is_no_further_from_the_truth_than_the_plain_operations(layout, mean, add, slope):
    shape, low = (2, 4, 8, 8, 8), torch.bfloat16
    x = (features(*shape, layout=layout) + mean).detach().to(low).requires_grad_()
    residual = features(*shape, layout=layout, dtype=low, seed=1) if add else None
    grad = features(*shape, layout=layout, dtype=low, seed=2).detach()
    single = [None if t is None else t.detach().float().requires_grad_() for t in (x, residual)]
    truth = run(plain, *single, slope, grad.float())
    ours = run(instance_norm, x, residual, slope, grad)
    peers = run(plain, x, residual, slope, grad)
    for one, peer, true in zip(ours, peers, truth, strict=True):
        assert one.dtype == low
        assert (one.float() - true).norm() <= 1.5 * (peer.float() - true).norm()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bfloat16_input_with_a_large_mean_is_off_by_the_rounding_of_the_output_alone(layout):
    x = (features(2, 4, 8, 8, 8, layout=layout) + 20).detach().to(torch.bfloat16)
    truth = functional.instance_norm(x.float())
    # 2^-8 is the distance of neighbours; rounded statistics would be off by several per cent
    torch.testing.assert_close(instance_norm(x, slope=1.0).float(), truth, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("add", "slope"), CASES)
def test_output_and_gradients_keep_the_memory_format(dtype, layout, batch, add, slope):
    shape = (batch, 3, 4, 5, 6)
    x, residual, grad = step(*shape, layout=layout, dtype=dtype, add=add)
    for tensor in run(instance_norm, x, residual, slope, grad):
        assert tensor.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("add", [False, True])
def test_layouts_that_differ_give_the_same_numbers(add):
    shape = (2, 3, 4, 5, 6)
    x, residual, grad = (features(*shape, seed=seed).detach() for seed in range(3))
    mixed = [x.clone().requires_grad_(), residual.contiguous().requires_grad_() if add else None]
    alike = [x.clone().requires_grad_(), residual.clone().requires_grad_() if add else None]
    ours = run(instance_norm, *mixed, SLOPE, grad.contiguous())
    for one, other in zip(ours, run(instance_norm, *alike, SLOPE, grad), strict=True):
        torch.testing.assert_close(one, other)


PARTS = [
    lambda t: t[:, 1:4],  # some of the channels
    lambda t: t[..., 1:-1, :, 1:],  # a crop
    lambda t: t.transpose(2, 4),
]


@pytest.mark.parametrize(("add", "slope"), CASES)
def test_part_of_a_larger_tensor_gives_what_its_copy_gives(add, slope):
    for part, layout in itertools.product(PARTS, LAYOUTS):
        whole = [features(2, 6, 5, 6, 7, layout=layout, seed=seed).detach() for seed in range(3)]
        x, residual, grad = map(part, whole)
        copy, residual = x.clone(memory_format=torch.contiguous_format), residual if add else None
        ours = run(instance_norm, x.requires_grad_(), residual, slope, grad)
        peers = run(plain, copy.requires_grad_(), residual, slope, grad.contiguous())
        for one, other in zip(ours, peers, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("viewed", ["x", "gradient"])
@pytest.mark.parametrize("add", [False, True])
def test_batch_stride_that_view_gives_one_image_changes_nothing(viewed, add):
    x, residual, grad = (features(1, 8, 4, 5, 6, seed=seed).detach() for seed in range(3))
    residual = residual if add else None
    copy, plain_grad = x.contiguous(), grad.contiguous()
    odd = (x.view(x.shape), plain_grad) if viewed == "x" else (copy.clone(), grad.view(x.shape))
    ours = run(instance_norm, odd[0].requires_grad_(), residual, 1.0, odd[1])
    peers = run(plain, copy.requires_grad_(), residual, 1.0, plain_grad)
    for one, other in zip(ours, peers, strict=True):
        torch.testing.assert_close(one, other)


def test_gradient_of_a_plain_sum_is_that_of_the_plain_operations():
    x = features(2, 3, 4, 5, 6)
    for function in (instance_norm, plain):  # a sum's gradient is one number, expanded
        function(x).sum().backward()
    (twice,) = torch.autograd.grad(plain(x).sum(), x)
    torch.testing.assert_close(x.grad, 2 * twice)


def test_residual_alone_may_want_a_gradient():
    x, residual = features(1, 3, 4, 4, 4).detach(), features(1, 3, 4, 4, 4, seed=1)
    grad = features(1, 3, 4, 4, 4, seed=2).detach()
    ours, peers = (
        torch.autograd.grad(function(x, residual, SLOPE), residual, grad)[0]
        for function in (instance_norm, plain)
    )
    torch.testing.assert_close(ours, peers)


@pytest.mark.parametrize("slope", [SLOPE, 1.0])
def test_one_tensor_is_kept_without_a_residual_and_two_with_one(slope):
    x, residual = features(2, 3, 8, 8, 8), features(2, 3, 8, 8, 8, seed=1)
    assert kept_sizes(lambda: instance_norm(x, None, slope)).count(x.numel()) == 1
    assert kept_sizes(lambda: instance_norm(x, residual, slope)).count(x.numel()) == 2
    assert kept_sizes(lambda: plain(x, residual, slope)).count(x.numel()) == 2


def test_tensor_that_is_kept_is_the_one_that_the_next_convolution_keeps():
    x, kernel = features(1, 3, 8, 8, 8), torch.randn(3, 3, 3, 3, 3)
    sizes = kept_sizes(lambda: functional.conv3d(instance_norm(x), kernel, padding=1))
    assert sizes.count(x.numel()) == 1


@pytest.mark.parametrize(("add", "slope"), CASES)
def test_result_that_takes_the_place_of_its_input_is_the_same(add, slope):
    x, residual = (features(2, 6, 5, 4, 3, seed=seed).detach() for seed in range(2))
    given = [x.clone().requires_grad_() for _ in range(2)]
    outputs = []
    for leaf, overwrite in zip(given, (False, True), strict=True):
        inner = leaf * 2  # as a convolution's output: needed by nobody else
        y = instance_norm(inner, residual if add else None, slope, overwrite)
        assert (y.data_ptr() == inner.data_ptr()) == overwrite
        y.square().sum().backward()
        outputs.append(y)
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(given[0].grad, given[1].grad)
