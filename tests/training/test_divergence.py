"""A loss or a weight that is not finite ends the run, with its cases, its cause and its state."""

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents

from lora_ext.training import BestModel, LastCheckpoint
from lora_ext.training.divergence import FiniteTraining

NAN = float("nan")


@pytest.fixture
def diverging(tmp_path, small_network, build):
    """A function that trains with a saboteur, a handler of this event; the error's text."""

    def run(event, spoil, epochs=2):
        network = small_network()

        def handlers(validator, optimizer):
            last = LastCheckpoint(tmp_path, {"network": network, "optimizer": optimizer}, validator)
            return [], [last]

        trainer, validator = build(network, handlers, epochs=epochs)
        BestModel(network, tmp_path).attach(validator)
        trainer.add_event_handler(event, lambda engine: spoil(engine, network))
        with pytest.raises(FloatingPointError, match=r"diverged\.ckpt") as error:
            trainer.run()
        assert "\n" not in str(error.value)
        return str(error.value)

    return run


def spoil_weights(value, engine, network):
    with torch.no_grad():
        network.decoder.out.conv.conv.weight.fill_(value)


def spoil_batch(key, value, engine):
    engine.state.batch[key][0, 0, 0, 0, 0] = value


def test_weights_that_start_so_are_not_blamed_on_the_learning_rate(diverging):
    text = diverging(Events.STARTED, lambda e, n: spoil_weights(NAN, e, n))
    assert text.startswith("the loss is nan in epoch 1, step 1 (case0): weights are not finite")
    assert "--pretrained" in text
    assert "--learning_rate" not in text


def test_weights_too_large_at_the_start_are_not_either(diverging):
    text = diverging(Events.STARTED, lambda e, n: spoil_weights(3e38, e, n))
    assert "no step was taken yet, so a number is too large, of weights up to 3e+38" in text
    assert "--learning_rate" not in text


@pytest.mark.parametrize("key", ["image", "label"])
def test_cases_that_are_not_finite_are_named(diverging, key):
    event = Events.ITERATION_STARTED(once=2)
    text = diverging(event, lambda e, n: spoil_batch(key, NAN, e))
    assert "in epoch 1, step 2 (case1): the " + key + " is not finite after preprocessing" in text


def test_loss_that_diverges_later_is_the_learning_rates(diverging):
    text = diverging(Events.ITERATION_STARTED(once=4), lambda e, n: spoil_weights(3e38, e, n))
    assert (
        "in epoch 2, step 4 (case1): the training diverged, so lower --learning_rate (now" in text
    )


def test_state_is_kept_and_reproduces_the_loss(diverging, tmp_path, small_network):
    diverging(Events.ITERATION_STARTED(once=4), lambda e, n: spoil_weights(3e38, e, n))
    state = torch.load(tmp_path / "diverged.ckpt", weights_only=True)
    assert (state["epoch"], state["iteration"], state["cases"]) == (2, 4, ["case1"])
    network = small_network(seed=5)
    network.load_state_dict(state["network"])
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        network(state["image"]), state["label"]
    )
    assert not loss.isfinite()


def test_weights_spoilt_by_the_last_step_of_an_epoch_reach_no_file(diverging, tmp_path):
    diverging(
        IterationEvents.MODEL_COMPLETED,
        lambda e, n: spoil_weights(NAN, e, n) if e.state.iteration == 4 else None,
    )
    for name in ("last.ckpt", "model.pt"):
        content = torch.load(tmp_path / name, weights_only=True)
        assert all(v.isfinite().all() for v in content.get("network", content).values())
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 1


def test_training_that_stays_finite_is_left_alone(tmp_path, small_network, build):
    network = small_network()
    trainer, _ = build(network, lambda v, o: ([FiniteTraining(network, tmp_path)], []))
    trainer.run()
    assert trainer.state.epoch == 2
    assert not list(tmp_path.iterdir())
