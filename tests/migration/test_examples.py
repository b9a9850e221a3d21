"""The examples in examples/migration: `migrate` makes each from the script for transformers, and it runs."""

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from modelwright import logging
from modelwright.migration.rewrite import rewrite

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "migration"
SCRIPTS = sorted(path.name for path in (FOLDER / "before").glob("*.py"))


@pytest.fixture(autouse=True)
def own_process_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("sys.argv", ["script"])
    before = logging.get_verbosity()
    yield
    logging.set_verbosity(before)


def run(path: Path) -> Any:
    return runpy.run_path(str(path))["main"]()


@pytest.mark.parametrize("name", SCRIPTS)
def test_migrate_makes_the_example(name: str) -> None:
    changes = rewrite((FOLDER / "before" / name).read_text(encoding="utf-8"), name)
    assert changes.after == (FOLDER / name).read_text(encoding="utf-8")
    assert changes.kept == []


def test_every_example_has_its_script() -> None:
    assert sorted(path.name for path in FOLDER.glob("*.py")) == SCRIPTS
    assert len(SCRIPTS) == 3


def test_the_text_encoder_runs(capsys: pytest.CaptureFixture[str]) -> None:
    run(FOLDER / "text_encoder.py")
    assert capsys.readouterr().out == (
        "a pruned head is a masked head: True\nheads of the layers: [3, 4]\nthe same after saving and loading: True\n"
    )


def test_the_classifier_learns() -> None:
    loss, label = run(FOLDER / "finetune_classifier.py")
    assert loss < 0.65
    assert label == "good"


def test_the_generator_writes() -> None:
    loss, text = run(FOLDER / "reformer_generator.py")
    assert loss < 3.0
    assert text.startswith("the quick brown ")
    assert len(text) == 48


@pytest.mark.slow
@pytest.mark.parity
def test_the_classifier_is_that_of_transformers() -> None:
    theirs = run(FOLDER / "before" / "finetune_classifier.py")
    torch.testing.assert_close(run(FOLDER / "finetune_classifier.py")[0], theirs[0], rtol=1e-3, atol=1e-3)
