"""Every ```python block of README.md and of UPGRADING-FROM-TRANSFORMERS.md runs, in order, in an empty folder.

The blocks of a file share one namespace.
"""

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "UPGRADING-FROM-TRANSFORMERS.md"]

_BLOCK = re.compile(r"^```python[^\n]*\n(.*?)^```\s*$", re.MULTILINE | re.DOTALL)


def python_blocks(text: str) -> list[tuple[int, str]]:
    """Return the line number and the code of each block."""
    return [(text.count("\n", 0, match.start(1)) + 1, match.group(1)) for match in _BLOCK.finditer(text)]


def run_blocks(path: Path) -> dict[str, Any]:
    """Run the blocks of a file in one namespace, with line numbers in tracebacks that are those of the file."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for line, code in python_blocks(path.read_text(encoding="utf-8")):
        exec(compile("\n" * (line - 1) + code, str(path), "exec"), namespace)
    return namespace


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_code_of_a_document_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert python_blocks((ROOT / name).read_text(encoding="utf-8")), f"{name} shows no Python code"
    run_blocks(ROOT / name)


def test_blocks_share_a_namespace_and_keep_their_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "sample.md"
    path.write_text("# Title\n```python\nx = 1\n```\n```bash\nno python\n```\n\n```python\nx += 1\n```\n")
    assert [line for line, _ in python_blocks(path.read_text())] == [3, 10]
    assert run_blocks(path)["x"] == 2
    path.write_text("text\n\n```python\nraise ValueError('here')\n```\n")
    with pytest.raises(ValueError, match="here") as caught:
        run_blocks(path)
    assert caught.traceback[-1].lineno == 3  # pytest counts from 0
