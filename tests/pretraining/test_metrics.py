"""Metrics of held-out volumes, and masks that do not change from one validation to the next."""

import pytest
import torch
from ignite.engine import Engine

from lora_ext.pretraining import FixedMasks, MaskedPatchLoss, held_out_metrics
from lora_ext.pretraining.loss import mean_only_loss


def evaluate(network, batches, *handlers):
    """An ignite engine as MONAI's evaluator fills it."""

    def step(engine, volume):
        with torch.no_grad():
            return {"image": volume, "pred": network(volume)}

    engine = Engine(step)
    for name, metric in held_out_metrics().items():
        metric.attach(engine, name)
    for handler in handlers:
        handler.attach(engine)
    return engine.run(batches).metrics


def test_metrics_are_averages_and_explained_is_their_ratio(autoencoder, volumes):
    network, batches = autoencoder(), [volumes[:1], volumes[1:]]
    torch.manual_seed(3)
    metrics = evaluate(network, batches)
    torch.manual_seed(3)
    outputs = [(network(v), v) for v in batches]
    losses = [MaskedPatchLoss()(o, v).item() for o, v in outputs]
    means = [mean_only_loss(v, o[1]).item() for o, v in outputs]
    assert metrics["val_loss"] == pytest.approx(sum(losses) / 2)
    assert metrics["val_mean_only_loss"] == pytest.approx(sum(means) / 2)
    assert metrics["val_explained"] == pytest.approx(1 - sum(losses) / sum(means))


def test_same_masks_at_every_validation_and_training_is_not_disturbed(autoencoder, volumes):
    network, batches = autoencoder(), [volumes[:1], volumes[1:]]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = evaluate(network, batches, FixedMasks(5))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(10)
    assert evaluate(network, batches, FixedMasks(5)) == first
    assert evaluate(network, batches, FixedMasks(6)) != first


def test_mask_of_a_volume_depends_on_its_name_and_the_seed_alone(autoencoder, volumes):
    masks, network = {}, autoencoder()

    def step(engine, batch):
        mask = network(volumes[:1])[1]
        assert torch.equal(mask, masks.setdefault(batch["case"][0], mask))

    for names in (["a", "b", "c"], ["c", "a"], ["b"]):
        engine = Engine(step)
        FixedMasks(5).attach(engine)
        engine.run([{"case": [name]} for name in names])
    assert len({str(mask.tolist()) for mask in masks.values()}) > 1
