"""Where a name of transformers or pytorch_quantization lives here, found without importing anything."""

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from modelwright import _public

_ROOT = "modelwright"
_PACKAGE = Path(_public.__file__).parent

# "transformers.modeling_bert" of 3.x is "transformers.models.bert.modeling_bert" of 4.x.
_PATH_OF_3 = re.compile(r"transformers\.((?:modeling|configuration|tokenization)_(\w+))")

# What each package becomes.
PACKAGES = {"transformers": _ROOT, "pytorch_quantization": "modelwright.quantization"}

# Out of scope: these work on models of transformers, not on ours.
OUT_OF_SCOPE = frozenset(
    {"Trainer", "TrainingArguments", "Seq2SeqTrainer", "Seq2SeqTrainingArguments", "TrainerCallback", "pipeline"}
)
# Names that exist here and mean something else.
OTHER_MEANING = {"__version__": "here it is the version of another library; compare with the one you mean"}


@dataclass(frozen=True)
class Place:
    """Where an attribute path of theirs leads here: a module of ours, and what is looked up in it."""

    module: str
    rest: tuple[str, ...]


def package_of(module: str) -> str | None:
    """Return the package that is moved from and that `module` belongs to, None if it belongs to none."""
    root = module.partition(".")[0]
    return root if root in PACKAGES else None


def moved_module(module: str) -> str:
    """Return what a module of a package that is moved from would be called here, whether or not it is here."""
    root = module.partition(".")[0]
    return PACKAGES[root] + module.removeprefix(root)


def destination(module: str, name: str) -> str | None:
    """Return our module from which `name`, imported from `module` there, is imported here; None if it is not here.

    The module at the same path if it has the name, or the one where 4.x moved a module of 3.x; else the root.
    """
    if name in OTHER_MEANING or name in OUT_OF_SCOPE:
        return None
    ours = moved_module(module)
    old = _PATH_OF_3.fullmatch(module)
    for place in (ours, f"{_ROOT}.models.{old[2]}.{old[1]}") if old else (ours,):
        if is_module(f"{place}.{name}") or name in names_of(place):
            return place
    return _ROOT if package_of(module) == "transformers" and name in names_of(_ROOT) else None


def why_kept(name: str) -> str:
    """Return the reason why a name stays with its package."""
    if name in OTHER_MEANING:
        return OTHER_MEANING[name]
    if name in OUT_OF_SCOPE:
        return "out of scope: it works on models of transformers"
    return "modelwright does not have it"


def place_of(module: str, path: tuple[str, ...]) -> Place | str:
    """Return where the attributes `path` of their `module` lead here, or the reason why they lead nowhere.

    The longest front of the path that names a module of ours counts as a module, the next part as a name in it.
    """
    for count, name in enumerate(path):
        if is_module(moved_module(f"{module}.{name}")):
            module = f"{module}.{name}"
            continue
        found = destination(module, name)
        return why_kept(name) if found is None else Place(found, path[count:])
    return Place(moved_module(module), ())


def is_module(module: str) -> bool:
    """Tell whether we have a module of this name, under its own path or as a public name."""
    return _file_of(module) is not None


def is_bare_package(module: str) -> bool:
    """Tell whether a module of ours is a folder that serves no names, not even its own modules."""
    file = _file_of(module)
    return file is not None and file.name == "__init__.py" and module not in (_ROOT, *_public.DOORS)


def serves(module: str, child: str) -> bool:
    """Tell whether `module.child`, a module of ours, can be reached as an attribute without importing it."""
    return child in names_of(module)


def needs_import(module: str) -> bool:
    """Tell whether a module of ours must be imported by its path before attributes lead to it."""
    parts = module.split(".")
    return not all(serves(".".join(parts[:count]), parts[count]) for count in range(1, len(parts)))


@cache
def _file_of(module: str) -> Path | None:
    home = _public.find(module.removeprefix(_ROOT + "."))
    path = _PACKAGE.parent.joinpath(*(f"{home}.{module.rpartition('.')[2]}" if home else module).split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((each for each in candidates if each.is_file()), None)


@cache
def names_of(module: str) -> frozenset[str]:
    """Return the names that code may import from a module of ours; none if there is no such module.

    What a file imports for its own use counts only if it is public: a part of a model may have an interface of its own.
    """
    if module == _ROOT:
        return frozenset(_public.names()) | _public.submodules(module) | {"__version__"}
    if module in _public.DOORS:
        return frozenset(name for names in _public.DOORS[module].values() for name in names)
    file = _file_of(module)
    if file is None:
        return frozenset()
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.name for alias in node.names if alias.asname is None and _public.find(alias.name)}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            named = {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
            found |= set(ast.literal_eval(node.value)) if named == {"__all__"} and node.value else named
    return frozenset(name for name in found if not name.startswith("_"))
