"""Instance norm, sum and leaky ReLU in one differentiable step that keeps channels last.

A decoder level at the paper's size holds 128 x 128 x 48 voxels times 64 channels: its norms and
activations do little arithmetic and move much memory. PyTorch's ``instance_norm`` folds the batch
into the channels, which forces a copy of a channels-last volume there and back, and a separate sum
and activation read and write it twice more. Here each image is normalised by the batch-norm kernel
(an instance norm is a batch norm over one image), which takes either layout as it is, and the sum
and the activation are done in place on its output::

    forward    y = leaky_relu(norm(x) + residual)
    backward   g = leaky_relu'(y) * dy;  d residual = g;  d x = norm'(x) g

Only ``y`` and the residual are kept, which the convolutions around keep anyway: the activation can
be undone and the residual taken off, and ``norm(x)`` with 1 / std is all that the gradient needs
(Rota Bulo et al. 2018, In-Place Activated BatchNorm, arXiv:1712.02616). Statistics are float32
when `x` is bfloat16 or float16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

EPS = 1e-5  # MONAI's and PyTorch's default
SLOPE = 0.01  # of MONAI's UNETR blocks; 1 is no activation


def instance_norm(
    x: Tensor,
    residual: Tensor | None = None,
    slope: float = SLOPE,
    overwrite: bool = False,
) -> Tensor:
    """Compute ``leaky_relu(instance_norm(x) + residual)``.

    Args:
        x: features, shape (B, C, H, W, D), in either memory format.
        residual: features of the same shape, added before the activation.
        slope: slope of the activation below zero, above 0; 1 leaves it out.
        overwrite: `x` is needed by nobody else (a convolution does not keep its output), so that
            the result may take its place in memory.

    Returns:
        Features of the same shape, type and memory format as `x`.
    """
    return _InstanceNorm.apply(x, residual, slope, overwrite)


class _InstanceNorm(torch.autograd.Function):
    """See the module's header."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, residual: Tensor | None, slope: float, overwrite: bool
    ) -> Tensor:
        given, x = x, x.contiguous(memory_format=_layout(x))  # the kernels misread gaps
        if overwrite and x.device.type == "cpu":
            y = x
            ctx.mark_dirty(*([x] if x is given else []))
        else:
            y = torch.empty_like(x)
        inverse = _unit_affine(x)[0].new_empty(x.shape[:2])
        for n, (image, out) in enumerate(zip(x.split(1), y.split(1), strict=True)):
            _normalise(image, out, inverse[n])
        if residual is not None:
            y += residual
        if slope != 1.0:
            functional.leaky_relu_(y, slope)
        ctx.slope = slope
        ctx.save_for_backward(y, inverse, residual)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, inverse, residual = ctx.saved_tensors
        grad = grad.contiguous(memory_format=_layout(y))
        normed = y
        if ctx.slope != 1.0:
            grad = torch.ops.aten.leaky_relu_backward(grad, y, ctx.slope, True)
            normed = functional.leaky_relu(y, 1 / ctx.slope)
        if residual is not None:
            normed = normed - residual if normed is y else normed.sub_(residual)
        to_residual = grad if residual is not None else None
        return _norm_gradient(grad, normed, inverse), to_residual, None, None


def _normalise(image: Tensor, out: Tensor, inverse: Tensor) -> None:
    """Write the norm of one image to `out` and 1 / std of its channels to `inverse`."""
    ones, zeros = _unit_affine(image)
    batch_norm = torch.ops.aten.native_batch_norm.out
    if image.dtype == ones.dtype:
        # the kernel's own sums over many voxels lose a few digits, which shows in full precision
        variance, center = torch.var_mean(image, dim=(0, 2, 3, 4), correction=0)
        inverse.copy_((variance + EPS).rsqrt())
        unused = ones.new_empty(0), ones.new_empty(0)
        batch_norm(
            image, ones, zeros, center, variance, False, 0.0, EPS,
            out=out, save_mean=unused[0], save_invstd=unused[1],
        )  # fmt: skip
    else:
        batch_norm(
            image, ones, zeros, None, None, True, 0.0, EPS,
            out=out, save_mean=torch.empty_like(ones), save_invstd=inverse,
        )  # fmt: skip


def _layout(x: Tensor) -> torch.memory_format:
    """The memory format that `x` has, or is to get."""
    last = torch.channels_last_3d
    return last if x.is_contiguous(memory_format=last) else torch.contiguous_format


def _norm_gradient(grad: Tensor, normed: Tensor, inverse: Tensor) -> Tensor:
    """Gradient of the norm, from its output: its input is taken as of mean 0 and std 1."""
    ones, zeros = _unit_affine(normed)
    gradients = []
    for n, (g, image) in enumerate(zip(grad.split(1), normed.split(1), strict=True)):
        gradient, *_ = torch.ops.aten.native_batch_norm_backward(
            g, image, inverse[n], None, None, zeros, ones, True, EPS, [True, False, False]
        )
        gradients.append(gradient)
    return gradients[0] if len(gradients) == 1 else torch.cat(gradients)


def _unit_affine(x: Tensor) -> tuple[Tensor, Tensor]:
    """Weight one and bias zero; in float32, so that the kernels keep their statistics in it."""
    dtype = torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype
    ones = torch.ones(x.shape[1], dtype=dtype, device=x.device)
    return ones, torch.zeros_like(ones)
