"""What a run does before its first step, as handlers of its engines."""

import logging

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.handlers import CheckpointLoader

from lora_ext.training import LoadModel, StartTraining, processes
from lora_ext.weights import save_model


@pytest.fixture
def trainer(small_network, build):
    """A function that builds a trainer with these handlers and the starting one."""

    def make(*handlers, network=None, epochs=1, **places):
        network = network or small_network()
        return build(
            network,
            lambda validator, _: ([*handlers, StartTraining(validator, network, **places)], []),
            epochs=epochs,
        )

    return make


def test_cases_are_counted_and_those_for_validation_named(trainer, caplog):
    caplog.set_level(logging.INFO)
    trainer(pretrained="none")[0].run()
    assert "2 training cases, 2 for validation (case0, case1)" in caplog.text


def test_run_without_a_case_to_validate_on_is_refused_before_its_first_step(trainer):
    engine, validator = trainer(pretrained="none")
    validator.data_loader = DataLoader(Dataset([]), batch_size=1)
    with pytest.raises(ValueError, match=r"validation cases: expected at least one, got none"):
        engine.run()
    assert engine.state.iteration == 0


def test_run_with_more_processes_than_cases_is_refused(trainer, monkeypatch):
    engine, _ = trainer(pretrained="none")
    monkeypatch.setattr(processes.idist, "get_world_size", lambda: 3)
    with pytest.raises(ValueError, match=r"found 2 cases for 3 processes"):
        engine.run()


def test_encoder_is_brought_in_before_the_first_step(trainer, small_network, tmp_path):
    torch.save({"blocks": "none"}, tmp_path / "vit.pt")
    with pytest.raises(ValueError, match=r"vit\.pt: holds no tensors"):
        trainer(pretrained=str(tmp_path / "vit.pt"))[0].run()


def test_whole_model_that_monai_loads_is_kept_and_validated_as_epoch_0(
    trainer, small_network, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    trained, network = small_network(seed=3), small_network()
    save_model(trained, tmp_path / "model.pt")
    loader = CheckpointLoader(str(tmp_path / "model.pt"), {"model": network})
    (tmp_path / "encoder.safetensors").write_bytes(b"would end the run if it were read")
    engine, validator = trainer(loader, network=network, ckpt_dir=tmp_path)
    seen = {}

    def remember(engine):
        seen[engine.state.epoch] = {k: v.clone() for k, v in network.state_dict().items()}

    validator.add_event_handler(Events.COMPLETED, remember)
    engine.run()
    assert list(seen) == [0, 1]
    assert all(torch.equal(seen[0][k], v) for k, v in trained.state_dict().items())
    assert "continuing from the whole model that CheckpointLoader loads" in caplog.text
    assert "encoder" not in caplog.text


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_whole_model_that_monai_could_not_load_is_refused_in_one_sentence(
    trainer, small_network, tmp_path, content
):
    network, path = small_network(), tmp_path / "model.pt"
    loader = CheckpointLoader(str(path), {"model": network})
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.pt: .*; expected a .safetensors file or a torch"):
        trainer(loader, network=network)


def test_evaluation_loads_the_model_when_it_begins(build, small_network, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    trained, network = small_network(seed=3), small_network()
    save_model(trained, tmp_path / "model.pt")
    loading = LoadModel(network, tmp_path)
    _, validator = build(network, lambda *_: ([], []), val_handlers=[loading])
    validator.run(1)
    assert "model.pt, 2 cases (case0, case1)" in caplog.text
    for key, value in trained.state_dict().items():
        assert torch.equal(network.state_dict()[key], value)


def test_evaluation_without_a_model_is_refused(build, small_network, tmp_path):
    network = small_network()
    loading = LoadModel(network, tmp_path)
    _, validator = build(network, lambda *_: ([], []), val_handlers=[loading])
    with pytest.raises(ValueError, match=r"model\.pt: no trained model there"):
        validator.run(1)


@pytest.mark.parametrize("name", ["model.pt", "last.ckpt"])
def test_new_training_does_not_replace_a_model_unasked(trainer, small_network, tmp_path, name):
    save_model(small_network(), tmp_path / "model.pt")
    (tmp_path / "model.pt").rename(tmp_path / name)
    with pytest.raises(ValueError, match=f"found {name} of an earlier training"):
        trainer(ckpt_dir=tmp_path, pretrained="none", replace=False)[0].run()
    trainer(ckpt_dir=tmp_path, pretrained="none", replace=True)[0].run()


def test_training_that_continues_from_a_model_may_improve_it(trainer, small_network, tmp_path):
    network = small_network()
    save_model(network, tmp_path / "model.pt")
    loader = CheckpointLoader(str(tmp_path / "model.pt"), {"model": network})
    trainer(loader, network=network, ckpt_dir=tmp_path, replace=False)[0].run()
