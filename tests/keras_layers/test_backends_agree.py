"""The backends of Keras give each other's numbers, within 1e-6; each runs in a process of its own."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import references as ref

BACKENDS = ("jax", "tensorflow", "torch")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("results")
    script = Path(__file__).with_name("cases.py")
    found = {}
    for backend in BACKENDS:
        file = folder / f"{backend}.npz"
        environment = {**os.environ, "KERAS_BACKEND": backend}
        result = subprocess.run(
            [sys.executable, str(script), str(file)], env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
        found[backend] = dict(np.load(file))
    return found


def test_each_ran_every_case(results: dict[str, dict[str, Any]]) -> None:
    assert [set(found) for found in results.values()] == [set(ref.expected())] * 3


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(BACKENDS, 2)))
def test_two_backends_agree(one: str, other: str, results: dict[str, dict[str, Any]]) -> None:
    for name, value in results[one].items():
        np.testing.assert_allclose(value, results[other][name], rtol=1e-6, atol=1e-6, err_msg=name)
