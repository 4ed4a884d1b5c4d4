"""Several models that segment together, such as the folds of a cross-validation."""

from __future__ import annotations

import copy

from torch import nn

from lora_ext.weights.record import Folders, model_folders


def ensemble(network: nn.Module, ckpt_dir: Folders) -> nn.Module:
    """Make a network for each model that a run uses; `lora_ext.training.LoadModel` loads them.

    Args:
        network: the network of one model.
        ckpt_dir: folders of the models, see `model_folders`.

    Returns:
        `network` itself for one folder, else its copies as a ``torch.nn.ModuleList``, in the order
        of the folders. `lora_ext.evaluation.AveragingInferer` averages their probabilities.

    Raises:
        ValueError: see `model_folders`.
    """
    copies = len(model_folders(ckpt_dir)) - 1
    if not copies:
        return network
    return nn.ModuleList([network, *(copy.deepcopy(network) for _ in range(copies))])
