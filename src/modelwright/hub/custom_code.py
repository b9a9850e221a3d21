"""Python files that belong to a checkpoint: which they are, what they must not import, and their hash.

The files of a class are its module and, from there on, every module of the same folder that is imported relatively.
"""

import ast
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from modelwright import _public
from modelwright.core.errors import InputError, check_choice
from modelwright.core.logging import get_logger

logger = get_logger(__name__)

# Below this module is the code that was loaded, in one package for each hash: see modelwright.models.auto.remote_code.
CODE_PACKAGE = "modelwright.models.auto.custom_modules"


class AutoClassMixin:
    """`register_for_auto_class`, for what an auto class can find by the code saved beside it."""

    _auto_class: str | None = None
    _default_auto_class: ClassVar[str]

    @classmethod
    def register_for_auto_class(cls, auto_class: str | type | None = None) -> None:
        """Make saving copy this class's file, and the files that it imports relatively, and name it for `auto_class`.

        `auto_class` is the name of an auto class or the class; None is the plainest one, such as "AutoModel". Loading
        needs trust_remote_code=True. Raises InputError for a name that is no auto class, and for a file that cannot be
        saved because it imports from outside its folder.
        """
        name = cls._default_auto_class if auto_class is None else auto_class
        name = name if isinstance(name, str) else name.__name__
        known = [each for each in _public.names() if each.startswith("Auto")]
        check_choice(f"{cls.__name__}.register_for_auto_class: auto_class", name, known)
        if _homeless(cls) is None:
            _texts(Path(inspect.getfile(cls)))  # what is wrong with them is said now, not after a training
        cls._auto_class = name


def code_to_save(classes: Iterable[type[AutoClassMixin]]) -> tuple[dict[str, str], dict[str, str]]:
    """Return {auto class: "module.Class"} and {file name: text} for those of the `classes` that are registered.

    Raises InputError for a file that imports from outside its folder, or if two files have one name.
    """
    auto_map: dict[str, str] = {}
    files: dict[str, str] = {}
    for cls in classes:
        if cls._auto_class is None:
            continue
        if (place := _homeless(cls)) is not None:
            logger.warning(
                "%s is defined in %s, so its code is not saved; move it to a file of its own and import it.",
                cls.__name__,
                place,
            )
            continue
        path = Path(inspect.getfile(cls))
        for name, text in _texts(path).items():
            if files.setdefault(name, text) != text:
                raise InputError(f"{path}: two different files named {name} belong to this checkpoint; rename one.")
        auto_map[cls._auto_class] = f"{path.stem}.{cls.__name__}"
    return auto_map, files


def _homeless(cls: type) -> str | None:
    """Return where a class is defined that no file could give back, None for an ordinary one."""
    if cls.__module__ == "__main__":
        return "__main__"
    return None if cls.__qualname__ == cls.__name__ else "a function or class"


def _texts(path: Path) -> dict[str, str]:
    files = closure(str(path.parent), [path.stem], lambda name: (path.parent / name).read_bytes())
    return {name: data.decode("utf-8") for name, data in files.items()}


def closure(place: str, modules: Iterable[str], read: Callable[[str], bytes]) -> dict[str, bytes]:
    """Return {file name: content} of the `modules` and of all that they import relatively; `read` gives a file.

    Raises InputError for a file that is no Python, or that imports from outside its folder.
    """
    files: dict[str, bytes] = {}
    waiting = sorted(set(modules))
    while waiting:
        name = f"{waiting.pop()}.py"
        if name not in files:
            files[name] = read(name)
            waiting += sorted(_siblings(f"{place}: {name}", files[name]))
    return files


def code_hash(files: Mapping[str, bytes]) -> str:
    """Return the SHA-256 of the names and contents of `files`."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return digest.hexdigest()


def hash_of_class(cls: type) -> str | None:
    """Return the hash of the code that `cls` was loaded from, None for a class of an ordinary module."""
    if not cls.__module__.startswith(f"{CODE_PACKAGE}."):
        return None
    return cls.__module__.removeprefix(f"{CODE_PACKAGE}.").split(".")[0].removeprefix("h")


def refuse_upstream(place: str, files: Mapping[str, bytes]) -> None:
    """Raise InputError if one of the `files` imports transformers, which modelwright does not run."""
    for name, source in files.items():
        for node in ast.walk(_parse(f"{place}: {name}", source)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            if any(each.split(".")[0] == "transformers" for each in names):
                raise InputError(
                    f"{place}: {name}, line {getattr(node, 'lineno', 0)}: the code imports transformers. Nothing was "
                    f"run. Rewrite its imports with `modelwright migrate {name}` in a copy of the checkpoint, and load "
                    "that."
                )


def qualify(says: dict[str, Any], repo_name: str) -> dict[str, Any]:
    """Return a config's content with the repository in front of the files that its auto_map names.

    So a copy of the config that is saved elsewhere still says where the code is.
    """
    if not isinstance(auto_map := says.get("auto_map"), dict):
        return says

    def full(reference: Any) -> Any:
        if isinstance(reference, list):
            return [full(each) for each in reference]
        return f"{repo_name}--{reference}" if isinstance(reference, str) and "--" not in reference else reference

    return {**says, "auto_map": {name: full(reference) for name, reference in auto_map.items()}}


def _siblings(where: str, source: bytes) -> set[str]:
    """Return the modules of its own folder that the file imports."""
    found = set()
    for node in ast.walk(_parse(where, source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            for name in names:
                if node.level > 1 or "." in name or name == "*":
                    raise InputError(
                        f"{where}, line {node.lineno}: expected relative imports from files of the same folder, got "
                        f"'from {'.' * node.level}{node.module or ''} import ...'; put the file beside this one."
                    )
                found.add(name)
    return found


def _parse(where: str, source: bytes) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise InputError(f"{where}: expected Python {version} code: {error}") from error
