"""The code of docs/keras.md runs on every backend."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("code_blocks", ROOT / "tests" / "docs" / "test_code_blocks.py")
    assert spec is not None
    assert spec.loader is not None
    code_blocks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code_blocks)
    monkeypatch.chdir(tmp_path)
    namespace = code_blocks.run_blocks(ROOT / "docs" / "keras.md")
    assert tuple(namespace["hidden"].shape) == (2, 3, 8)
    assert tuple(namespace["summary"].shape) == (2, 8)
    assert tuple(namespace["scores"].shape) == (1, 3, 10)
    assert type(namespace["layer"]).__name__ == "TFConv1D"
