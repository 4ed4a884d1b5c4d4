import pytest
import torch

from lora_ext.training import BestModel


class State:
    def __init__(self, epoch, best):
        self.epoch, self.best_metric_epoch = epoch, best


class Validation:
    """What BestModel reads of an evaluator."""

    def __init__(self, epoch, best):
        self.state = State(epoch, best)


@pytest.mark.parametrize(
    ("regime", "files"),
    [
        ("lora", {"model.pt", "network.json", "adapter.safetensors"}),
        ("frozen", {"model.pt", "network.json", "adapter.safetensors"}),
        ("finetune", {"model.pt", "network.json"}),
        ("baseline", {"model.pt", "network.json"}),
    ],
)
def test_best_model_is_written_with_what_its_regime_can_restore(
    tmp_path, small_network, regime, files
):
    BestModel(small_network(regime=regime), tmp_path).save_if_best(Validation(3, 3))
    assert {p.name for p in tmp_path.iterdir()} == files


def test_a_worse_model_does_not_replace_the_best(tmp_path, small_network):
    network = small_network()
    handler = BestModel(network, tmp_path)
    handler.save_if_best(Validation(1, 1))
    before = torch.load(tmp_path / "model.pt", weights_only=True)
    with torch.no_grad():
        network.decoder.out.conv.conv.bias.add_(1)
    handler.save_if_best(Validation(2, 1))
    after = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(after[k], v) for k, v in before.items())
    handler.save_if_best(Validation(3, 3))
    newest = torch.load(tmp_path / "model.pt", weights_only=True)
    assert not torch.equal(
        newest["decoder.out.conv.conv.bias"], before["decoder.out.conv.conv.bias"]
    )


def test_model_that_training_starts_from_stays_until_an_epoch_is_better(tmp_path, small_network):
    handler = BestModel(small_network(), tmp_path)
    (tmp_path / "model.pt").write_bytes(b"the model that is loaded")
    handler.save_if_best(Validation(0, 0))
    handler.save_if_best(Validation(1, 0))
    assert (tmp_path / "model.pt").read_bytes() == b"the model that is loaded"
    handler.save_if_best(Validation(2, 2))
    assert torch.load(tmp_path / "model.pt", weights_only=True)


def test_model_loaded_from_elsewhere_is_kept_as_the_best_so_far(tmp_path, small_network):
    BestModel(small_network(), tmp_path).save_if_best(Validation(0, 0))
    assert (tmp_path / "model.pt").is_file()


def test_model_on_disk_is_the_one_of_the_best_epoch(tmp_path, small_network, build):
    network = small_network()
    seen = {}

    class Recorder:
        def attach(self, engine):
            from ignite.engine import Events

            engine.add_event_handler(Events.EPOCH_COMPLETED, self.record)

        def record(self, engine):
            bias = network.decoder.out.conv.conv.bias.detach().clone()
            seen[engine.state.epoch] = (engine.state.metrics["val_pooled_dice"], bias)

    trainer, _ = build(
        network,
        lambda v, o: ([], []),
        epochs=4,
        learning_rate=0.05,
        val_handlers=[Recorder(), BestModel(network, tmp_path)],
    )
    trainer.run()
    best = max(seen, key=lambda epoch: seen[epoch][0])
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert len({dice for dice, _ in seen.values()}) > 1
    assert torch.equal(state["decoder.out.conv.conv.bias"], seen[best][1])
