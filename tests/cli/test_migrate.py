"""`modelwright migrate`: what it shows, what it writes, its exit codes, and bad input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
BEFORE = """#!/usr/bin/env python
# é
from transformers import BertModel, Trainer
BertModel.from_pretrained('x', from_tf=True)
"""
AFTER = BEFORE.replace(
    "from transformers import BertModel, Trainer", "from modelwright import BertModel\nfrom transformers import Trainer"
)


def test_it_shows_a_diff_and_a_table_and_changes_nothing(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(BEFORE)
    result = run("migrate", path)
    assert result.exit_code == 1
    assert "+from modelwright import BertModel" in result.stdout
    assert "-from transformers import BertModel, Trainer" in result.stdout
    assert "transformers.Trainer: out of scope" in result.stdout
    assert "from_tf=: only PyTorch checkpoints" in result.stdout
    assert "1 files to change (--write changes them)" in result.stdout
    assert path.read_text() == BEFORE


def test_it_writes_in_place_with_mode_encoding_and_line_ends(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(BEFORE.replace("# é", "# coding: latin-1\n# é").replace("\n", "\r\n").encode("latin-1"))
    path.chmod(0o750)
    assert run("migrate", path, "--write").exit_code == 1
    expected = AFTER.replace("# é", "# coding: latin-1\n# é").replace("\n", "\r\n").encode("latin-1")
    assert path.read_bytes() == expected
    assert path.stat().st_mode & 0o777 == 0o750
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.py"]
    before = path.stat().st_mtime_ns
    assert run("migrate", path, "--write").exit_code == 1
    assert path.stat().st_mtime_ns == before, "a file without changes was written"


def test_json_has_all_notes(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(BEFORE)
    found = json.loads(run("migrate", tmp_path, "--json").stdout)
    assert (found["written"], found["changed"], found["moved"], found["kept"], found["by_hand"]) == (False, 1, 1, 1, 1)
    report = found["files"][str(path)]
    assert report["moved"] == [{"line": 3, "what": "transformers.BertModel", "reason": "modelwright"}]
    assert report["by_hand"][0]["line"] == 4


def test_all_moved_is_exit_code_0(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("from transformers import BertModel\n")
    (tmp_path / "b.py").write_text("import os\n")
    result = run("migrate", tmp_path)
    assert result.exit_code == 0
    assert "b.py" not in result.stdout
    assert "1 files to change (--write changes them); 1 names moved, 0 kept on transformers" in result.stdout


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"import transformers\nprint 'x'\n", "bad.py, line 2: this is no Python 3"), (b"\0\1", "found a binary file")],
)
def test_a_bad_file_does_not_stop_the_others(run: Run, data: bytes, message: str, tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.py", tmp_path / "good.py"
    bad.write_bytes(data)
    good.write_text("from transformers import BertModel\n")
    result = run("migrate", tmp_path, "--write")
    assert result.exit_code == 2
    assert message in result.stderr
    assert bad.read_bytes() == data
    assert good.read_text() == "from modelwright import BertModel\n"
    report = json.loads(run("migrate", tmp_path, "--json").stdout)
    assert message in report["files"][str(bad)]["error"]


def test_a_folder_without_python_is_bad_input(run: Run, tmp_path: Path) -> None:
    result = run("migrate", tmp_path)
    assert result.exit_code == 2
    assert "expected Python files in this folder, found none" in result.stderr
