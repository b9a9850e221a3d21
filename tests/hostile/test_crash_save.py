"""Saves stopped at every point leave the old or the new checkpoint, for us and for readers that know nothing of us.

The library writes safetensors in Rust, so the points lie below Python: see syscall_faults.py. `pytest -s` prints how
many there are.
"""

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
    sys.path.insert(0, str(WORKER.parent))  # where its helper is
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(WORKER.parent))
    return list(module.TRANSITIONS)


QUICK = ("single-sharded", "config-sharded", "journal-shrink")


def stop_everywhere(name, *options):
    # On a memory file system fsync costs nothing; where names may be exchanged matters, and it may there.
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as workdir:
        done = subprocess.run(
            [sys.executable, WORKER, workdir, name, *options],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MODELWRIGHT_VERBOSITY": "error"},
        )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    print(name, result)
    assert result["kills"] >= 20
    assert result["size_limits"] >= 8
    assert result["old"] >= 10
    assert result["new"] >= 2
    if "calls" in result:  # the system lets us filter
        assert result["errors"] == result["kills"]
        assert {"write", "fsync", "openat"} <= set(result["calls"])
    return result


@pytest.mark.parametrize("name", QUICK)
def test_every_crash_leaves_the_old_or_the_new_checkpoint(name):
    stop_everywhere(name)


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize("name", transitions())
def test_transformers_reads_the_same_after_every_crash(name):
    result = stop_everywhere(name, "--upstream")
    assert result["states_upstream"] >= 2 or name.startswith("journal")  # other libraries know no journal
