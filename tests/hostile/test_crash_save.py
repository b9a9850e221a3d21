"""Saves stopped at every point leave the old or the new checkpoint, for us and for readers that know nothing of us."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("crash_worker.py")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and limits file sizes")


def transitions():
    spec = importlib.util.spec_from_file_location("crash_worker", WORKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module.TRANSITIONS)


QUICK = ("single-sharded", "config-sharded", "journal-shrink")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in transitions()]
)
def test_every_crash_leaves_the_old_or_the_new_checkpoint(name):
    # On a memory file system fsync costs nothing; where names may be exchanged matters, and it may there.
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as workdir:
        done = subprocess.run(
            [sys.executable, WORKER, workdir, name],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MODELWRIGHT_VERBOSITY": "error"},
        )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["kills"] >= 20
    assert result["size_limits"] >= 8
    assert result["old"] >= 10
    assert result["new"] >= 2
