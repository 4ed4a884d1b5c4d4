"""The folders of a run, before it starts: made, tried, cleaned, and no other run's."""

from __future__ import annotations

import os
from pathlib import Path

import ignite.distributed as idist

from lora_ext.files import take_folder


def check_either(resume: bool | None, overwrite: bool) -> None:
    """Refuse a run that is both to be resumed and to start anew.

    Raises:
        ValueError: if both are asked for.
    """
    if resume and overwrite:
        raise ValueError(
            "--resume and --overwrite: found both True; give --resume True to go on, or "
            "--overwrite True to start anew"
        )


def prepare_folders(
    output_dir: str | os.PathLike[str], ckpt_dir: str | os.PathLike[str] | None = None
) -> None:
    """Make sure that a run can write and that nobody else writes there.

    Rank 0 alone does it. What a killed run left unfinished is removed.

    Args:
        output_dir: the run's folder.
        ckpt_dir: folder of the models, where the run trains one.

    Raises:
        ValueError: for a folder that cannot be written or that another run works in.
    """
    if idist.get_rank() > 0:
        return
    folders = {"output_dir": output_dir} | ({} if ckpt_dir is None else {"ckpt_dir": ckpt_dir})
    for flag, folder in folders.items():
        take_folder(folder, flag)


def check_no_model(ckpt_dir: str | os.PathLike[str]) -> None:
    """Refuse to train anew where a model or the state of a run would be replaced.

    A resumed run may find a model without ``last.ckpt``: it was stopped between the two.

    Args:
        ckpt_dir: folder of the models.

    Raises:
        ValueError: for such a folder.
    """
    ckpt_dir = Path(ckpt_dir)
    held = [name for name in ("model.pt", "last.ckpt") if (ckpt_dir / name).is_file()]
    if held:
        raise ValueError(
            f"{ckpt_dir}: found {' and '.join(held)} of an earlier training, expected a folder "
            "without a model; give --resume True to go on with it, --overwrite True to replace "
            "it, or another --ckpt_dir"
        )
