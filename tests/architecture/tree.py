"""What the architecture tests look at: the source files and the statements in them, without importing anything."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "modelwright"
DOOR_MARK = "# Made by tools/make_doors.py"


@dataclass(frozen=True)
class Import:
    """One imported module, as written in one file."""

    file: Path
    line: int
    module: str
    top_level: bool

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.module}"


def source_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def is_door(path: Path) -> bool:
    return DOOR_MARK in path.read_text(encoding="utf-8")


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> list[Import]:
    """All imports of a file: at the top, inside functions, and `importlib.import_module("literal")`.

    Those below `if TYPE_CHECKING:` count as not top-level: they do not happen when the module is imported.
    """
    return list(_walk(parse(path), path, top_level=True))


def _walk(node: ast.AST, path: Path, *, top_level: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(path, child.lineno, alias.name, top_level)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{path}:{child.lineno}: a relative import"
            module = child.module or ""
            # `from modelwright.models import reformer` imports the module modelwright.models.reformer.
            for alias in child.names:
                full = f"{module}.{alias.name}"
                yield Import(path, child.lineno, full if is_module(full) else module, top_level)
        elif isinstance(child, ast.Call) and ast.unparse(child.func).endswith("import_module"):
            first = child.args[0] if child.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield Import(path, child.lineno, first.value, False)
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        lazy = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
        yield from _walk(child, path, top_level=top_level and not inside and not lazy)


def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return name.startswith("modelwright") and (path.with_suffix(".py").exists() or (path / "__init__.py").exists())
