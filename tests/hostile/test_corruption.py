# ruff: noqa: E501, PT017 (a row of the table is a line; an error may occur and need not)
"""The corruption matrix: every fault is refused with a typed error that names file, expected, found and likely cause.

Each row damages a sound checkpoint. Beside the folder lies a secret that no fault may make us read, and no message may
advise to switch a protection off.
"""

import builtins
import io
import json
import os
import pickle
import re
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from modelwright.checkpoint.index import read_index
from modelwright.checkpoint.load import load_into, module_targets
from modelwright.checkpoint.open import open_checkpoint
from modelwright.checkpoint.plan import make_load_plan
from modelwright.checkpoint.safetensors_file import SafetensorsFile
from modelwright.checkpoint.save import save_checkpoint
from modelwright.checkpoint.verify import require_verified, verify
from modelwright.core.errors import CheckpointError, CheckpointMismatchError, RepoError
from modelwright.hub.local import LocalRepo

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
BYPASS = re.compile(r"weights_only\s*=\s*False|trust_remote_code|allow_pickle|disable|unsafe", re.I)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Linear(4, 4, bias=False)
        self.b = torch.nn.Linear(4, 4, bias=False)


def load(folder):
    net = Net()
    with open_checkpoint(LocalRepo(folder)) as opened:
        load_into(net, opened, make_load_plan(opened.infos, module_targets(net)))
    return net


def header(entries, data=b"", length=None):
    text = json.dumps(entries).encode() if isinstance(entries, dict) else entries
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin=0, end=64, dtype="F32", shape=(4, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def write(name, data):
    return lambda folder: (folder / name).write_bytes(data)


def truncate(name, count):
    def damage(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:count] if count >= 0 else data[: len(data) + count])

    return damage


def flip(name, position):
    def damage(folder):
        data = bytearray((folder / name).read_bytes())
        data[position] ^= 0x40
        (folder / name).write_bytes(data)

    return damage


def index(change):
    def damage(folder):
        value = json.loads((folder / INDEX).read_text())
        change(value)
        (folder / INDEX).write_text(json.dumps(value))

    return damage


def link(name, target):
    def damage(folder):
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return damage


def tensors(name, **values):
    return lambda folder: save_file(
        {key: value.clone() for key, value in values.items()}, folder / name, metadata={"format": "pt"}
    )


def pickled(folder):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(folder / "exploded"),)

    (folder / SINGLE).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a.weight": Bomb()}, protocol=2))


def set_map(name, file):
    return index(lambda value: value["weight_map"].__setitem__(name, file))


W = torch.ones(4, 4)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1234\n"

# (what is saved, how it is damaged, what the message says: file, expected or found, likely cause)
MATRIX = {
    "empty": (1, write(SINGLE, b""), [SINGLE, "8 bytes", "empty"]),
    "cut in the length": (1, truncate(SINGLE, 5), [SINGLE, "found 5"]),
    "cut in the header": (1, truncate(SINGLE, 60), [SINGLE, "expected a header of", "found a file of 60", "truncated"]),
    "cut before the data": (1, truncate(SINGLE, -128), [SINGLE, "expected", "128 bytes are missing"]),
    "cut in the data": (1, truncate(SINGLE, -1), [SINGLE, "expected", "found", "truncated: 1 bytes"]),
    "too long": (1, lambda folder: (folder / SINGLE).write_bytes((folder / SINGLE).read_bytes() + b"x"), [SINGLE, "1 bytes too many"]),
    "cut shard": (2, truncate(SECOND, -1), [SECOND, "truncated"]),
    "git-lfs": (1, write(SINGLE, LFS), [SINGLE, "Git-LFS pointer of a file of 1,234 bytes", "git lfs pull"]),
    "web page": (1, write(SINGLE, b"<!DOCTYPE html><title>Log in</title>"), [SINGLE, "web page"]),
    "zeros": (1, write(SINGLE, bytes(500)), [SINGLE, "zero bytes"]),
    "bit of the length": (1, flip(SINGLE, 1), [SINGLE, "header"]),
    "bit of the header": (1, flip(SINGLE, 9), [SINGLE, "not JSON|damaged"]),
    "header of 2^63": (1, write(SINGLE, header(b"{}", length=2**63)), [SINGLE, "9,223,372,036,854,775,808 bytes"]),
    "header of 2^40": (1, write(SINGLE, header(b"{}", length=2**40)), [SINGLE, "more than the 100,000,000"]),
    "overlap": (1, write(SINGLE, header({"a.weight": entry(), "b.weight": entry(32, 96)}, bytes(96))), [SINGLE, "overlap"]),
    "hole": (1, write(SINGLE, header({"a.weight": entry(), "b.weight": entry(96, 160)}, bytes(160))), [SINGLE, "hole"]),
    "offsets against shape": (1, write(SINGLE, header({"a.weight": entry(0, 60)}, bytes(60))), [SINGLE, "needs 64 bytes"]),
    "negative size": (1, write(SINGLE, header({"a.weight": entry(shape=(-4, -4))}, bytes(64))), [SINGLE, "has the shape"]),
    "product over 2^64": (1, write(SINGLE, header({"a": entry(shape=(2**62, 8))}, bytes(64))), [SINGLE, "needs"]),
    "unknown dtype": (1, write(SINGLE, header({"a": entry(dtype="F13")}, bytes(64))), [SINGLE, "unknown dtype 'F13'"]),
    "deep JSON": (1, write(SINGLE, header(b'{"a":' + b"[" * 200_000)), [SINGLE, "nested too deeply|not JSON"]),
    "key twice": (1, write(SINGLE, header(b'{"a":{},"a":{}}')), [SINGLE, "occurs twice"]),
    "pickle": (1, pickled, ["pytorch_model.bin", "is not a tensor", "nothing of it was run"]),
    "other shape": (1, tensors(SINGLE, **{"a.weight": torch.ones(2, 2), "b.weight": W}), [SINGLE, r"stored \[2, 2\]", r"expects \[4, 4\]"]),
    "other kind": (1, tensors(SINGLE, **{"a.weight": torch.ones(4, 4, dtype=torch.int64), "b.weight": W}), [SINGLE, "int64", "float32"]),
    "index empty": (2, write(INDEX, b""), [INDEX, "not JSON", "empty"]),
    "index no JSON": (2, write(INDEX, b"{"), [INDEX, "not JSON"]),
    "index deep": (2, write(INDEX, b"[" * 200_000), [INDEX, "not JSON"]),
    "index is a list": (2, write(INDEX, b"[]"), [INDEX, "expected an index"]),
    "index without metadata": (2, index(lambda value: value.pop("metadata")), [INDEX, "found no object 'metadata'"]),
    "index without map": (2, index(lambda value: value.pop("weight_map")), [INDEX, "found no object 'weight_map'"]),
    "index of numbers": (2, set_map("a.weight", 5), [INDEX, "expected a file name for 'a.weight', found '5'"]),
    "promised, absent": (2, set_map("c.weight", FIRST), [FIRST, "promises the tensor 'c.weight'", "in no shard"]),
    "in another shard": (2, set_map("a.weight", SECOND), ["promises the tensor 'a.weight'|in this file", "different saves"]),
    "not in the index": (2, tensors(FIRST, **{"a.weight": W, "c.weight": W}), [FIRST, "'c.weight', which", "does not list"]),
    "in two shards": (2, tensors(SECOND, **{"a.weight": W, "b.weight": W}), [INDEX, "'a.weight' is in two of its shards"]),
    "shard is gone": (2, lambda folder: (folder / SECOND).unlink(), [INDEX, SECOND, "there is no file"]),
    "dots": (2, set_map("a.weight", "../secret.safetensors"), [INDEX, "../secret.safetensors", "Nothing was read"]),
    "absolute": (2, lambda folder: set_map("a.weight", str(folder.parent / "secret.safetensors"))(folder), [INDEX, "Nothing was read"]),
    "backslash": (2, set_map("a.weight", "..\\secret.safetensors"), [INDEX, "Nothing was read"]),
    "shard is a link": (2, link(SECOND, "../secret.safetensors"), [SECOND, "is a link that leaves", "Nothing was read"]),
    "single beside index": (2, tensors(SINGLE, **{"a.weight": W, "b.weight": W}), [SINGLE, INDEX, "Delete the one"]),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    save_file({"a.weight": W * 7, "b.weight": W * 7}, tmp_path / "secret.safetensors")
    return tmp_path / "ckpt"


def sound(folder, shards):
    weights = {"a.weight": W, "b.weight": 2 * W}
    save_checkpoint(weights, folder, max_shard_size=64 if shards == 2 else "5GB")
    load(folder)


@pytest.fixture
def opened(monkeypatch, folder):
    """The files that are opened, by whatever way of Python's."""
    paths = []

    def noted(function):
        def wrapper(path, *arguments, **options):
            if isinstance(path, str | os.PathLike):
                paths.append(Path(path).resolve())
            return function(path, *arguments, **options)

        return wrapper

    for module, name in ((builtins, "open"), (io, "open"), (os, "open")):
        monkeypatch.setattr(module, name, noted(getattr(module, name)))
    return paths


@pytest.mark.parametrize("fault", MATRIX)
def test_no_fault_is_silent(fault, folder, opened):
    shards, damage, parts = MATRIX[fault]
    sound(folder, shards)
    damage(folder)
    (folder / "modelwright.manifest.json").unlink(missing_ok=True)
    del opened[:]
    with pytest.raises((CheckpointError, CheckpointMismatchError, RepoError)) as caught:
        load(folder)
    message = str(caught.value)
    for part in parts:
        assert re.search(part, message), (part, message)
    assert not BYPASS.search(message), message
    assert not (folder / "exploded").exists()
    secret = folder.parent.resolve() / "secret.safetensors"
    assert opened and secret not in opened


@pytest.mark.parametrize("position", [-1, -64, -128])
def test_a_bit_of_the_data_is_found_by_its_hash(folder, position):
    sound(folder, 1)
    flip(SINGLE, position)(folder)
    require_verified(folder, None, hashes=False)
    with pytest.raises(CheckpointError, match=rf"{SINGLE}: its [\d,]+ bytes are not those of the manifest"):
        require_verified(folder, None, hashes=True)


def test_a_link_at_a_well_known_name_is_followed_and_reported(folder):
    sound(folder, 1)
    target = folder.parent / "elsewhere.safetensors"
    (folder / SINGLE).rename(target)
    (folder / SINGLE).symlink_to(target)
    load(folder)
    report = verify(folder)
    assert report.ok
    assert any("is a link that leaves the folder" in finding.message for finding in report.findings)
    assert not verify(folder, strict=True).ok


def test_the_boundary_of_a_hub_snapshot_is_its_repository(tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / ("0" * 40)
    blobs = snapshot.parent.parent / "blobs"
    blobs.mkdir(parents=True)
    sound(tmp_path / "plain", 2)
    snapshot.mkdir(parents=True)
    for name in (INDEX, FIRST, SECOND):
        (tmp_path / "plain" / name).rename(blobs / name)
        (snapshot / name).symlink_to(blobs / name)
    load(snapshot)
    other = tmp_path / "models--c--d" / "blobs"
    other.mkdir(parents=True)
    (blobs / SECOND).rename(other / SECOND)
    (snapshot / SECOND).unlink()
    (snapshot / SECOND).symlink_to(other / SECOND)
    with pytest.raises(RepoError, match=f"{SECOND}.* is a link that leaves .*models--a--b"):
        load(snapshot)


FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = st.sampled_from(["a", "b", "__metadata__", "dtype", "shape", "data_offsets", "", "\0", "é"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2**65),
    st.floats(),
    st.sampled_from(["F32", "I8", "x"]),
    st.text(max_size=3),
)
JSON = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=4))
)
ENTRY = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F32", "I8", "BOOL", "F8_E4M3"]), "shape": st.lists(st.integers(0, 5), max_size=3)}
    | {"data_offsets": st.lists(st.integers(0, 40), min_size=2, max_size=2)}
)
HEADERS = st.one_of(st.binary(max_size=80), st.dictionaries(NAMES, st.one_of(ENTRY, JSON), max_size=4))


@FUZZ
@given(head=HEADERS, data=st.binary(max_size=60), length=st.one_of(st.none(), st.integers(0, 2**64 - 1)))
def test_any_header_is_sound_or_a_typed_error(tmp_path, head, data, length):
    path = tmp_path / "fuzz.safetensors"
    path.write_bytes(header(head, data, length))
    try:
        with SafetensorsFile(path) as file:
            for name, info in file.infos.items():
                assert file.read(name).shape == info.shape
                assert file.read(name, dtype=torch.float32).shape == info.shape
    except CheckpointError as error:
        assert str(path) in str(error)


@FUZZ
@given(value=st.one_of(JSON.map(lambda value: json.dumps(value).encode()), st.binary(max_size=60),
       st.dictionaries(st.sampled_from(["metadata", "weight_map"]), JSON).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_any_index_is_sound_or_a_typed_error(tmp_path, value):
    path = tmp_path / INDEX
    path.write_bytes(value)
    try:
        assert read_index(path).files
    except CheckpointError as error:
        assert str(path) in str(error)
