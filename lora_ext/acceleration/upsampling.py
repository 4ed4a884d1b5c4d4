"""A transposed convolution and the convolution after it, as one.

In UNETR's decoder nothing non-linear stands between the transposed convolution that doubles a
volume (kernel 2, stride 2) and the 3x3x3 convolution that reads it. Two linear maps in a row are
one linear map, here a transposed convolution with kernel 4, stride 2 and padding 1::

    u = up(x, T)          u[2 i + a] = sum T[a] x[i]             a in {0, 1}
    v = conv(u, K)        v[o]       = sum K[k] u[o + k - 1]     k in {0, 1, 2}
    =>                    v[2 i + t - 1] = sum (T[a] K[k]) x[i]  t = a - k + 2 in {0, 1, 2, 3}

Every output voxel then needs 8 taps of ``x`` and not 27 of ``u``, and ``u`` (the largest tensor of
its level) is never made. The kernels are composed anew at each call, so the parameters, their
names and their gradients stay those of the two convolutions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def compose_kernels(up: Tensor, kernel: Tensor) -> Tensor:
    """Compose the kernel of a doubling transposed convolution with that of the next convolution.

    Args:
        up: shape (in, mid, 2, 2, 2), as ``conv_transpose3d`` takes it with stride 2.
        kernel: shape (out, mid, 3, 3, 3) or (out, mid, 1, 1, 1), as ``conv3d`` takes it with
            "same" padding.

    Returns:
        Shape (in, out, 4, 4, 4) or (in, out, 2, 2, 2), for ``conv_transpose3d`` with stride 2 and
        padding 1 or 0. Computed in the parameters' own precision, whatever autocast says.
    """
    with torch.autocast(up.device.type, enabled=False):
        return functional.conv_transpose3d(up, kernel.flip(2, 3, 4).transpose(0, 1))


def convolve_upsampled(x: Tensor, up: Tensor, kernel: Tensor) -> Tensor:
    """Compute ``conv3d(conv_transpose3d(x, up, stride=2), kernel, padding="same")``.

    Args:
        x: features, shape (B, in, H, W, D).
        up: see `compose_kernels`.
        kernel: see `compose_kernels`.

    Returns:
        Features of shape (B, out, 2 H, 2 W, 2 D).
    """
    padding = (kernel.shape[2] - 1) // 2
    return functional.conv_transpose3d(x, compose_kernels(up, kernel), stride=2, padding=padding)


def composing_pays(x: Tensor, up: Tensor, kernel: Tensor) -> bool:
    """Whether `convolve_upsampled` saves more than composing its kernels costs.

    Args:
        x: see `convolve_upsampled`.
        up: see `compose_kernels`.
        kernel: 3x3x3, see `compose_kernels`.

    Returns:
        True where a volume is large against its channels, as at the decoder's finer levels.
    """
    width, mid = up.shape[0], up.shape[1]
    voxels = 8 * x.shape[0] * x.shape[2] * x.shape[3] * x.shape[4]
    # multiplications per channel of the output; doubled, since small products run slower
    return voxels * (27 * mid - 8 * width) > 2 * width * mid * 8 * 27
