"""Write the doors and `src/modelwright/__init__.pyi` from the name table `modelwright._public`.

    python tools/make_doors.py           writes the files, and removes doors that the table no longer has
    python tools/make_doors.py --check   writes nothing; exit code 1 with a list of the files that are out of date

A door is a module that only serves names that live elsewhere. A door that is a room's `__init__.py` keeps the docstring
that the room gave it.
"""

import argparse
import ast
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
PACKAGE = SOURCE / "modelwright"
sys.path.insert(0, str(SOURCE))

from modelwright import _public  # noqa: E402 - the table of this tree, not of an installed package

MARK = "# Made by tools/make_doors.py from _public.py; change the table, not this file."
LINE_LENGTH = 120


def source_of(module: str) -> Path:
    """Return the file of `module`, which is its `__init__.py` if it is a package or will be one."""
    path = SOURCE.joinpath(*module.split("."))
    is_package = path.is_dir() or any(door.startswith(module + ".") for door in _public.DOORS)
    return path / "__init__.py" if is_package else path.with_suffix(".py")


def defined_names(module: str) -> set[str]:
    """Return what `module` defines or imports at its top level, and its submodules, without importing it."""
    path = source_of(module)
    names = set()
    if path.exists():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names |= _names_of(node)
    if path.name == "__init__.py":
        names |= {entry.stem for entry in path.parent.iterdir()} if path.parent.is_dir() else set()
        names |= {door.rpartition(".")[2] for door in _public.DOORS if door.rpartition(".")[0] == module}
    return names


def _names_of(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.name}
    if isinstance(node, ast.AnnAssign):
        return {node.target.id} if isinstance(node.target, ast.Name) else set()
    if isinstance(node, ast.Assign):
        return {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return set()


def missing() -> list[str]:
    """Return a line for each name of the table that its home module does not define."""
    lines = []
    tables = {"PUBLIC": _public.PUBLIC, **{f"DOORS[{door!r}]": homes for door, homes in _public.DOORS.items()}}
    for where, homes in tables.items():
        for home, names in homes.items():
            lines += [f"{where}: {home} has no {name}" for name in sorted(set(names) - defined_names(home))]
    return lines


def imports(homes: Mapping[str, Iterable[str]], indent: str = "") -> str:
    """Return the import statements for the names of `homes`, laid out and ordered as ruff wants."""
    statements = []
    for home in sorted(homes):
        listed = sorted(homes[home], key=_import_order)
        line = f"{indent}from {home} import {', '.join(listed)}"
        if len(line) > LINE_LENGTH:
            lines = "".join(f"{indent}    {name},\n" for name in listed)
            line = f"{indent}from {home} import (\n{lines}{indent})"
        statements.append(line)
    return "\n".join(statements)


def listing(names: Iterable[str]) -> str:
    """Return the statement that sets `__all__`, which also marks the imports as re-exports for type checkers."""
    return "__all__ = [\n" + "".join(f'    "{name}",\n' for name in sorted(names, key=_kind)) + "]"


def _kind(name: str) -> tuple[int, str]:
    """Sort constants first, then classes, then the others, as ruff wants `__all__`."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2), name


def _import_order(name: str) -> tuple[int, str, str]:
    """Sort as `_kind` does, but without regard to case within a kind, as ruff wants imports."""
    return _kind(name)[0], name.lower(), name


def docstring(door: str) -> str:
    """Return the docstring of a door: the room's own if it is a room's `__init__.py`."""
    path = source_of(door)
    if path.exists() and path.name == "__init__.py" and path.parent.name != "utils":
        own = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=False)
        if own:
            return own
    return f"The import path {door.replace('modelwright', 'transformers', 1)} of 4.x code; the names live elsewhere."


def door_text(door: str) -> str:
    """Return the text of a door."""
    homes = _public.DOORS[door]
    names = [name for names in homes.values() for name in names]
    return f'''"""{docstring(door)}"""
{MARK}

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
{imports(homes, "    ")}

{listing(names)}

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
'''


def stub_text() -> str:
    """Return the text of `__init__.pyi`."""
    rooms = "\n".join(f"from modelwright import {name} as {name}" for name in sorted(_public.submodules("modelwright")))
    names = listing(["__version__", *_public.names()])
    return f"{MARK}\n\n{rooms}\n{imports(_public.PUBLIC)}\n\n__version__: str\n\n{names}\n"


def wanted_files() -> dict[Path, str]:
    """Return every generated file and its text."""
    return {PACKAGE / "__init__.pyi": stub_text(), **{source_of(door): door_text(door) for door in _public.DOORS}}


def stale_doors(wanted: Iterable[Path]) -> list[Path]:
    """Return the files that were generated once and are no longer in the table."""
    kept = set(wanted)
    made = (path for path in sorted(PACKAGE.rglob("*.py")) if MARK in path.read_text(encoding="utf-8"))
    return [path for path in made if path not in kept]


def main() -> int:
    """Write or check; return the exit code."""
    parser = argparse.ArgumentParser(description="Write the doors and __init__.pyi from the name table.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    check = parser.parse_args().check
    errors = missing()
    if errors:
        print("The name table names what does not exist:", *errors, sep="\n  ", file=sys.stderr)
        return 1
    wanted = wanted_files()
    outdated = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    stale = stale_doors(wanted)
    if check:
        for path in outdated + stale:
            print(f"out of date: {path.relative_to(SOURCE)} (run `make doors`)", file=sys.stderr)
        return 1 if outdated or stale else 0
    for path in outdated:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path], encoding="utf-8")
    for path in stale:
        path.unlink()
    print(f"{len(wanted)} files, {len(outdated)} written, {len(stale)} removed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
