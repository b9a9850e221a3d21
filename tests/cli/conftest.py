"""A runner of the command, a text and one small training that the tests of this folder share."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from modelwright.cli.main import app

SMALL = (
    *("--window", "64", "--steps", "6", "--lr", "0.01", "--eval-every", "3", "--save-every", "3", "--held-out", "0.1"),
    *("--hidden", "16", "--layers", "local,lsh", "--heads", "2", "--chunk", "16"),
)


@pytest.fixture(scope="session")
def run() -> Callable[..., Any]:
    """Run the command in this process; an unexpected exception is raised, not made an exit code."""

    def invoke(*arguments: str | Path) -> Any:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)

    return invoke


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = random.Random(7)
    words = ["window", "byte", "bucket", "hash", "local", "chunk", "axial", "stream"]
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(generator.choice(words) for _ in range(500))[:2500])
    return path


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    """Give torch its threads back after commands that set them: sums of other parts differ in their last digits."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def small() -> tuple[str, ...]:
    """The options of a training that takes a fraction of a second."""
    return SMALL


@pytest.fixture(scope="session")
def trained(run: Callable[..., Any], text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `train --json` printed about a small training; nobody may change its folder."""
    out = tmp_path_factory.mktemp("trained") / "model"
    result = run("train", "--text", text_file, "--out", out, *SMALL, "--max-shard-size", "20KB", "--json")
    assert result.exit_code == 0, result.output
    printed: dict[str, Any] = json.loads(result.stdout)
    return printed
