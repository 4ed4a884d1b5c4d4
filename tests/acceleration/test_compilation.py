import logging

import torch
import torch._dynamo

from lora_ext.acceleration import compilation


def test_not_wanted_is_not_tried(monkeypatch):
    monkeypatch.setattr(torch, "compile", None)
    assert compilation(False) is False


def test_machine_that_cannot_compile_goes_on_without(monkeypatch, caplog):
    def no_compiler(function, **options):
        raise RuntimeError("no working C++ compiler found\nmore lines")

    monkeypatch.setattr(torch, "compile", no_compiler)
    with caplog.at_level(logging.WARNING):
        assert compilation(True) is False
    assert caplog.messages == [
        "compile: torch.compile does not work here (no working C++ compiler found); "
        "training without it"
    ]


def test_machine_that_can_compile_changes_no_setting_of_torch(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    before = torch._dynamo.config.suppress_errors
    assert compilation(True) is True
    assert torch._dynamo.config.suppress_errors == before
