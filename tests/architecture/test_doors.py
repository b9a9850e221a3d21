"""Doors hold re-exports only, rooms' `__init__.py` a docstring only, and both follow the name table."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import tree

from modelwright import _public

DOORS = [path for path in tree.source_files() if tree.is_door(path)]


def test_the_table_and_the_files_agree() -> None:
    assert {tree.module_name(path) for path in DOORS} == set(_public.DOORS)


def test_loose_modules_are_doors() -> None:
    loose = {
        path for path in tree.PACKAGE.glob("*.py") if path.name not in ("__init__.py", "__main__.py", "_public.py")
    }
    assert {path.name for path in loose - set(DOORS)} == set()


@pytest.mark.parametrize("path", DOORS, ids=lambda path: tree.module_name(path))
def test_a_door_holds_re_exports_only(path: Path) -> None:
    docstring, *statements = tree.parse(path).body
    assert isinstance(docstring, ast.Expr)
    for node in statements:
        if isinstance(node, ast.ImportFrom):
            continue
        if isinstance(node, ast.If):
            assert ast.unparse(node.test) == "TYPE_CHECKING"
            assert all(isinstance(inner, ast.ImportFrom) for inner in node.body)
            assert node.orelse == []
            continue
        assert isinstance(node, ast.Assign)
        assert ast.unparse(node.targets[0]) in ("__all__", "__getattr__, __dir__", "(__getattr__, __dir__)")


def test_rooms_have_only_a_docstring_in_their_init() -> None:
    for path in tree.PACKAGE.rglob("*/__init__.py"):
        if path not in DOORS:
            body = tree.parse(path).body
            assert len(body) == 1, f"{path} holds more than a docstring"
            assert ast.get_docstring(tree.parse(path)), f"{path} has no docstring"


def test_nothing_in_a_room_imports_a_door_or_the_root() -> None:
    doors = set(_public.DOORS)
    rooms_that_are_doors = {door for door in doors if (tree.PACKAGE.parent / Path(*door.split("."))).is_dir()}
    for path in tree.source_files():
        if path in DOORS or path.parent == tree.PACKAGE:
            continue
        for item in tree.imports_of(path):
            assert item.module != "modelwright", str(item)
            assert item.module not in doors - rooms_that_are_doors, f"{item}, which is a door; import from its home"


def test_the_generated_files_are_up_to_date() -> None:
    result = subprocess.run(
        [sys.executable, tree.ROOT / "tools" / "make_doors.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
