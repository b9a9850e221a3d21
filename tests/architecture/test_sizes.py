"""Budgets that keep the code livable; raise one only in the commit that needs it, with the reason."""

import ast
import statistics

import tree

MAX_FILE_LINES = 500
# The name table: a line for each public name, no code.
TABLES = {tree.PACKAGE / "_public.py"}
MAX_FUNCTION_LINES = 80
MAX_MEDIAN_LINES = 150


def lines_of(path: tree.Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_file_is_too_long() -> None:
    files = [
        *set(tree.source_files()) - TABLES,
        *(tree.ROOT / "tests").rglob("*.py"),
        *(tree.ROOT / "tools").rglob("*.py"),
    ]
    assert [(str(path), lines_of(path)) for path in files if lines_of(path) > MAX_FILE_LINES] == []


def test_the_median_file_is_short() -> None:
    written = [path for path in tree.source_files() if not tree.is_door(path) and path.name != "__init__.py"]
    assert statistics.median(map(lines_of, written)) <= MAX_MEDIAN_LINES


def test_no_function_is_too_long() -> None:
    long = []
    for path in tree.source_files():
        for node in ast.walk(tree.parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    long.append(f"{path.relative_to(tree.ROOT)}:{node.lineno} {node.name}: {length} lines")
    assert long == []
