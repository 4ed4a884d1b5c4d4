"""One segmentation from several looks at an image: mirrored, and by several networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn


class AveragingInferer(Inferer):
    """Average the probabilities of networks, and of an image and its mirror images.

    With one network and no axis it is the inferer that it calls, to the last bit.

    Args:
        inferer: infers with one network, such as sliding windows; its output are logits.
        mirror_axes: axes of the volume, of 0, 1, 2, that are mirrored, each alone and in all
            combinations: n axes take 2^n times as long. In RAS, 0 mirrors left and right.
    """

    def __init__(self, inferer: Inferer, mirror_axes: Sequence[int] = ()) -> None:
        super().__init__()
        self.inferer = inferer
        axes = [axis + 2 for axis in mirror_axes]  # behind batch and channels
        self.mirrored = [list(dims) for n in range(len(axes) + 1) for dims in combinations(axes, n)]

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Infer with each network on each mirror image.

        Args:
            inputs: images, (B, C, H, W, D).
            network: a network, or several in a ``torch.nn.ModuleList``.
            *args: passed on to the inferer.
            **kwargs: passed on to the inferer.

        Returns:
            Logits of the mean probabilities, (B, R, H, W, D); they are infinite where all
            probabilities are exactly 0 or 1.
        """
        networks = list(network) if isinstance(network, nn.ModuleList) else [network]
        if len(networks) * len(self.mirrored) == 1:
            return self.inferer(inputs, networks[0], *args, **kwargs)
        total: Any = 0
        for one in networks:
            for dims in self.mirrored:
                logits = self.inferer(inputs.flip(dims), one, *args, **kwargs)
                # Where the device is short of memory, the inferer's output is on the CPU.
                total = torch.sigmoid(logits).flip(dims) + (
                    total.to(logits.device) if isinstance(total, torch.Tensor) else total
                )
        return torch.logit(total / (len(networks) * len(self.mirrored)))
