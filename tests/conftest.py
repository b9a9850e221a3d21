"""No test reaches a network or the user's caches: the hub of this process is one of our own, on the loopback.

The client reads its settings when it is imported, so they are made here, before any test imports it. Nobody listens at
the address until a test asks for the fixture `hub`: who asks without it is refused at once.
"""

import atexit
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import pytest


def _load(path):
    # pytest's importlib mode puts no test folder on the path.
    spec = importlib.util.spec_from_file_location("modelwright_tests_loopback_hub", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_HUB = _load(Path(__file__).parent / "hub" / "loopback_hub.py").LoopbackHub()
_HOME = tempfile.mkdtemp(prefix="modelwright-tests-hf-")
atexit.register(_HUB.server_close)
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
for _name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_MODULES_CACHE"):
    os.environ.pop(_name, None)
os.environ.update(
    HF_ENDPOINT=_HUB.address,
    HF_HOME=_HOME,
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    NO_PROXY="127.0.0.1,localhost",
)


@pytest.fixture(scope="session")
def _running_hub():
    _HUB.start()
    return _HUB


@pytest.fixture
def hub(_running_hub):
    """An empty hub (tests/hub/loopback_hub.py) that the client of this process, and of its children, talks to."""
    _running_hub.forget()
    yield _running_hub
    assert _running_hub.faults == []


@pytest.fixture
def rotations_of_the_processor(monkeypatch):
    """Let Reformer hash on every device as on the processor: generators of a GPU draw other rotations."""
    import torch

    original = torch.randn

    def draw(shape, *, device, dtype, generator):
        there = torch.Generator().manual_seed(generator.initial_seed())
        return original(shape, dtype=dtype, generator=there).to(device)

    monkeypatch.setattr("modelwright.models.reformer.hashing.torch.randn", draw)
