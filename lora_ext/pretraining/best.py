"""Keep the best auto-encoder, and its encoder as the file that ``pretrained`` takes."""

from __future__ import annotations

import os

from lora_ext.pretraining.autoencoder import VolumeAutoEncoder
from lora_ext.training.best import BestModel
from lora_ext.weights import save_encoder, save_model


class BestEncoder(BestModel):
    """Save whenever validation's key metric is the best so far.

    Args:
        network: the auto-encoder.
        ckpt_dir: folder for ``model.pt`` (the whole auto-encoder), ``network.json`` and
            ``encoder.safetensors``.
    """

    def __init__(self, network: VolumeAutoEncoder, ckpt_dir: str | os.PathLike[str]) -> None:
        super().__init__(network, ckpt_dir)  # type: ignore[arg-type]
        self.autoencoder = network

    def save(self, epoch: int) -> None:
        """Write the auto-encoder and its encoder, which says the epoch that it is of."""
        save_model(self.autoencoder, self.ckpt_dir / "model.pt")
        config = self.autoencoder.config
        save_encoder(
            self.autoencoder.state_dict(),
            self.ckpt_dir / "encoder.safetensors",
            img_size=config["img_size"],
            num_heads=config["num_heads"],
            masking_ratio=config["masking_ratio"],
            epoch=epoch,
        )
