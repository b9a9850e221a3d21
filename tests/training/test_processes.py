"""Two processes train as one does with twice the batch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from modelwright.training.metrics import read_metrics
from modelwright.training.state import newest_checkpoint

SETTINGS = {"steps": 12, "window": 32, "lr": 0.01, "warmup": 2, "eval_every": 6, "save_every": 6, "device": "cpu"}


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(tiny: ModuleType, text_file: Path, tmp_path: Path) -> None:
    def start(name: str, launcher: list[str], **settings: Any) -> Path:
        script = [str(tiny.__file__), str(text_file), str(tmp_path / name), json.dumps({**SETTINGS, **settings}), "0.0"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *launcher, *script], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return tmp_path / name

    pair = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    one = start("one", [], batch=2, accumulate=2)
    two = start("two", pair, batch=1, accumulate=2)
    losses = [[r["loss"] for r in read_metrics(out / "metrics.jsonl") if r["kind"] == "train"] for out in (one, two)]
    assert len(losses[0]) == 12
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    saved = newest_checkpoint(two)
    assert saved is not None
    assert saved.position.step == 12
    assert saved.facts.processes == 2
    assert len(saved.state()["rng"]) == 2
    start("two", pair, batch=1, accumulate=2)  # resumes at the last step
