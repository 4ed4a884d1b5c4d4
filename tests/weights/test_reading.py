"""Every broken file of weights ends in one sentence, whichever door it comes in by."""

import argparse
import io
import json
import os
import pickle
import warnings
import zipfile

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_ext import load_adapter, load_encoder, load_model, save_adapter
from lora_ext.weights import save_model
from lora_ext.weights.reading import read_content, read_json, read_metadata, read_tensors

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}


def one_sentence(error, path):
    """The file is named, there is one line, and none of torch's advice."""
    text = str(error.value)
    assert str(path) in text
    assert "\n" not in text
    assert len(text) - len(str(path)) < 500
    assert "weights_only" not in text
    assert "expected" in text
    return text


def saved(content, **options):
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


class Runs:
    def __reduce__(self):
        return os.mkdir, ("it_ran",)


FORMATS = {
    "zip": saved(STATE),
    "legacy": saved(STATE, _use_new_zipfile_serialization=False),
    "safetensors": safetensors.torch.save(STATE),
}
HEADER = int.from_bytes(FORMATS["safetensors"][:8], "little")
CYCLE = {}
CYCLE["model"] = CYCLE
BROKEN = {
    "empty": b"",
    "text": b"not weights",
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "page": "<html><title>404 — not found</title></html>".encode(),
    "zeros": bytes(1000),
    "no torch zip": b"PK\x05\x06" + bytes(18),
    "huge header": (2**62).to_bytes(8, "little") + FORMATS["safetensors"][8:],
    "header that is no JSON": (9).to_bytes(8, "little") + b"{nonsense" + bytes(40),
    **{
        f"{name}, cut at {share}": whole[: int(len(whole) * share)]
        for name, whole in FORMATS.items()
        for share in (0.01, 0.3, 0.6, 0.99)
    },
    "list": saved([torch.ones(1)]),
    "number": saved(3),
    "tensor": saved(torch.ones(3)),
    "no tensor": saved({"state_dict": {"epoch": 3}}),
    "numbered": saved({1: torch.ones(3)}),
    "cycle": saved(CYCLE),
    "object": saved({"model": argparse.Namespace(a=1)}),
    "module": saved(torch.nn.Linear(1, 1)),
    "runs code": saved(Runs()),
    "runs code, legacy": saved(Runs(), _use_new_zipfile_serialization=False),
    "runs code, plain pickle": pickle.dumps(Runs(), protocol=2),
    "blown up": saved({"a": torch.zeros(1).expand(2**40)}),
}


@pytest.mark.parametrize("name", ["file.pt", "file.safetensors"])
@pytest.mark.parametrize("kind", BROKEN)
def test_broken_file_is_refused_in_one_sentence_and_nothing_in_it_runs(
    tmp_path, monkeypatch, kind, name
):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.write_bytes(BROKEN[kind])
    with pytest.raises(ValueError, match=r"file\.") as error:
        read_tensors(path)
    one_sentence(error, path)
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize("kind", [k for k in BROKEN if k.startswith("runs code")])
def test_file_whose_loading_runs_code_is_called_so(tmp_path, kind):
    (tmp_path / "v.pt").write_bytes(BROKEN[kind])
    with pytest.raises(ValueError, match=r"\w+\.mkdir in it, whose loading can run code, so noth"):
        read_tensors(tmp_path / "v.pt")


def test_program_is_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.ReLU()).save(str(tmp_path / "v.pt"))
    with pytest.raises(ValueError, match="TorchScript program in it, whose loading can run code"):
        read_tensors(tmp_path / "v.pt")


@pytest.mark.parametrize("reader", [read_tensors, read_content, read_metadata])
@pytest.mark.parametrize("place", ["missing.pt", "folder", ""])
def test_path_that_is_no_file_is_refused(tmp_path, monkeypatch, place, reader):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"no such|found a folder|empty path") as error:
        reader(place)
    one_sentence(error, place)


def test_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "v.pt").write_bytes(FORMATS["zip"])
    assert read_tensors("~/v.pt").keys() == STATE.keys()


@pytest.mark.parametrize("name", ["v.pt", "v.ckpt", "v.safetensors"])
@pytest.mark.parametrize("kind", FORMATS)
def test_format_is_seen_from_the_content_whatever_the_name(tmp_path, kind, name):
    (tmp_path / name).write_bytes(FORMATS[kind])
    read = read_tensors(tmp_path / name)
    assert read.keys() == STATE.keys()
    assert all(torch.equal(read[k], v) for k, v in STATE.items())


@settings(
    derandomize=True,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data(), kind=st.sampled_from(sorted(FORMATS)))
def test_damaged_file_loads_bit_equal_or_is_refused_in_one_sentence(tmp_path, data, kind):
    whole = FORMATS[kind]
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        damaged = whole[:place]
    else:
        flipped = bytes([whole[place] ^ (1 << data.draw(st.integers(0, 7)))])
        damaged = whole[:place] + flipped + whole[place + 1 :]
    path = tmp_path / "v.pt"
    path.write_bytes(damaged)
    try:
        read = read_tensors(path)
    except ValueError:
        with pytest.raises(ValueError) as error:  # noqa: PT011 (what it says is checked below)
            read_tensors(path)
        one_sentence(error, path)
        return
    if kind == "zip":  # the others have no checksums
        assert read.keys() == STATE.keys()
        assert all(torch.equal(read[k], v) for k, v in STATE.items())


@pytest.mark.parametrize(
    "extra", [{}, {"epoch": 3}, {"loss": torch.tensor(0.5)}, {"epoch": torch.tensor(3)}]
)
def test_state_dict_is_found_beside_anything_else(tmp_path, extra):
    torch.save({**extra, "state_dict": STATE}, tmp_path / "v.pt")
    assert read_tensors(tmp_path / "v.pt").keys() == STATE.keys()


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[1]", "3", "null", '{"a": 1', "[" * 100_000, '{"a":' * 100_000]
)
def test_record_that_is_no_object_is_refused(tmp_path, text):
    (tmp_path / "network.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="expected a JSON object") as error:
        read_json(tmp_path / "network.json")
    one_sentence(error, tmp_path / "network.json")


def test_record_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "network.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match=r"network\.json: found a file that cannot be read"):
        read_json(tmp_path / "network.json")


# What a network must not be filled with, made out of one of its tensors.
NO_WEIGHTS = {
    "NaN": lambda t: t.index_fill(0, torch.tensor([0]), float("nan")),
    "infinity": lambda t: t.index_fill(0, torch.tensor([0]), float("-inf")),
    "beyond float32": lambda t: t.double() * 1e200 + 1e200,
    "whole numbers": lambda t: t.long(),
    "bytes": lambda t: t.to(torch.uint8),
    "yes or no": lambda t: t > 0,
    "complex": lambda t: t.to(torch.complex64),
    "float8": lambda t: t.to(torch.float8_e4m3fn),
    "sparse": lambda t: t.to_sparse(),
    "meta": lambda t: t.to("meta"),
    "nested": lambda t: torch.nested.nested_tensor([t, t]),
    "quantised": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "another rank": lambda t: t.unsqueeze(0),
    "no number": lambda t: t.sum(),
    "another size": lambda t: torch.cat([t, t]),
    "empty": lambda t: t[:0],
}
PRECISIONS = [torch.float64, torch.bfloat16, torch.float16]


def model_file(network, path, change=None, key="decoder.out.conv.conv.weight"):
    save_model(network, path)
    state = torch.load(path, weights_only=True)
    if change:
        state[key] = change(state[key])
    torch.save(state, path)


def encoder_file(network, path, change=None, key="blocks.1.mlp.linear2.weight"):
    state = {k: v for k, v in network.encoder.state_dict().items() if "lora_" not in k}
    if change:
        state[key] = change(state[key])
    torch.save(state, path)


def positions_file(network, path, change=None):
    encoder_file(network, path, change, "patch_embedding.position_embeddings")


def anchor_file(network, path, change=None):
    encoder_file(network, path, change, "blocks.0.norm1.weight")


def adapter_file(network, path, change=None):
    save_adapter(network, path)
    tensors, metadata = read_tensors(path), read_metadata(path)
    key = "decoder.out.conv.conv.weight"
    if change:
        tensors[key] = change(tensors[key])
    safetensors.torch.save_file(tensors, path, metadata)


DOORS = {
    "model": (load_model, model_file),
    "encoder": (load_encoder, encoder_file),
    "positions": (load_encoder, positions_file),
    "first norm": (load_encoder, anchor_file),
    "adapter": (load_adapter, adapter_file),
}


def storable(door, kind):
    return door != "adapter" or kind not in ("sparse", "meta", "nested", "quantised")


@pytest.mark.parametrize(
    ("door", "kind"), [(d, k) for d in DOORS for k in NO_WEIGHTS if storable(d, k)]
)
def test_what_is_no_weight_is_refused_and_leaves_the_network_as_it_was(
    tmp_path, small_network, door, kind
):
    load, write = DOORS[door]
    path = tmp_path / "file.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, on sparse, nested and quantised tensors
        write(small_network(seed=0), path, NO_WEIGHTS[kind])
    network = small_network(seed=0)
    with torch.no_grad():
        network.decoder.out.conv.conv.bias.add_(1.0)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"file\.pt") as error:
        load(network, path)
    assert "\n" not in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("door", DOORS)
def test_other_precisions_load_as_float32_holds_them(tmp_path, small_network, door, dtype):
    load, write = DOORS[door]
    source, network = small_network(seed=0), small_network(seed=0)
    write(source, tmp_path / "file.pt", lambda t: t.to(dtype))
    load(network, tmp_path / "file.pt")
    for key, value in network.state_dict().items():
        wanted = source.state_dict()[key]
        assert torch.equal(value, wanted) or torch.equal(value, wanted.to(dtype).float()), key


def test_what_the_network_has_no_place_for_may_be_anything(tmp_path, small_network, holds, vit):
    state = vit.state_dict() | {
        "head.steps": torch.tensor(3),
        "head.mask": torch.full((2, 2), float("-inf")),
    }
    torch.save(state, tmp_path / "vit.pt")
    network = small_network()
    report = load_encoder(network, tmp_path / "vit.pt")
    assert holds(network, vit)
    assert {"head.steps", "head.mask"} <= set(report.skipped)


@pytest.mark.parametrize(
    "change",
    [
        {"network": None},
        {"network": "no JSON"},
        {"network": "[1]"},
        {"network": "[" * 50_000},
        {"encoder_sha256": None},
        {"format": None},
    ],
)
def test_adapter_with_broken_metadata_is_refused(tmp_path, small_network, change):
    path = tmp_path / "adapter.safetensors"
    save_adapter(small_network(), path)
    metadata = {k: v for k, v in {**read_metadata(path), **change}.items() if v is not None}
    safetensors.torch.save_file(read_tensors(path), path, metadata)
    with pytest.raises(ValueError, match=r"adapter\.safetensors") as error:
        load_adapter(small_network(), path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"num_heads": "four"},
        {"num_heads": ""},
        {"img_size": "32"},
        {"img_size": "[32, 32]"},
        {"img_size": '["a", 1, 2]'},
        {"img_size": "[" * 1000},
    ],
)
def test_encoder_with_broken_metadata_is_refused(tmp_path, small_network, vit, change):
    facts = {"format": "lora_ext encoder 1", "num_heads": "4", "img_size": "[32, 32, 16]"}
    path = tmp_path / "encoder.safetensors"
    safetensors.torch.save_file(vit.state_dict(), path, {**facts, **change})
    with pytest.raises(ValueError, match="in its metadata; expected") as error:
        load_encoder(small_network(), path)
    one_sentence(error, path)


@pytest.mark.parametrize("made", [3, "text", [1], {"a": torch.ones(2)}])
def test_broken_record_in_a_model_is_refused(tmp_path, small_network, made):
    save_model(small_network(), tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    state._metadata = {"": {"config": made}}
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt, the record in it: found") as error:
        load_model(small_network(), tmp_path / "model.pt")
    one_sentence(error, tmp_path / "model.pt")


@pytest.mark.parametrize("record", [{}, {"num_heads": "four"}, {"modalities": 3}, {"a": [[]]}])
def test_record_of_wrong_types_is_refused_and_an_empty_one_makes_no_difference(
    tmp_path, small_network, record
):
    source, network = small_network(seed=1), small_network()
    save_model(source, tmp_path / "model.pt")
    (tmp_path / "network.json").write_text(json.dumps(record), encoding="utf-8")
    if record:
        with pytest.raises(ValueError, match=r"model\.pt: was trained with other settings"):
            load_model(network, tmp_path / "model.pt")
    else:  # the record in the file itself is enough
        load_model(network, tmp_path / "model.pt")
        for key, value in network.state_dict().items():
            assert torch.equal(value, source.state_dict()[key])


def test_checksum_of_a_model_is_looked_at(tmp_path, small_network):
    path = tmp_path / "model.pt"
    save_model(small_network(), path)
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    damaged = bytearray(path.read_bytes())
    damaged[largest.header_offset + 1000] ^= 1  # well behind the entry's name and padding
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="found a damaged file"):
        load_model(small_network(), path)
