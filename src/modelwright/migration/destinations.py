"""Where a name of transformers or pytorch_quantization lives here, found without importing anything."""

import ast
from functools import cache
from pathlib import Path

from modelwright import _public

_PACKAGE = Path(_public.__file__).parent

# What each package becomes.
ROOTS = {"transformers": "modelwright", "pytorch_quantization": "modelwright.quantization"}

# Out of scope: these work on models of transformers, not on ours.
OUT_OF_SCOPE = frozenset(
    {"Trainer", "TrainingArguments", "Seq2SeqTrainer", "Seq2SeqTrainingArguments", "TrainerCallback", "pipeline"}
)
# Names that exist here and mean something else.
OTHER_MEANING = {"__version__": "it is the version of another library; compare with modelwright.__version__ on purpose"}


def package_of(module: str) -> str | None:
    """Return the package that is moved from and that `module` belongs to, None if it belongs to none."""
    root = module.partition(".")[0]
    return root if root in ROOTS else None


def moved_module(module: str) -> str:
    """Return what a module of a package that is moved from would be called here."""
    root = module.partition(".")[0]
    return ROOTS[root] + module.removeprefix(root)


def destination(module: str, name: str) -> str | None:
    """Return our module from which `name`, imported from `module` there, is imported here; None if it is not here.

    The module at the same path if it has the name, else the root.
    """
    if name in OTHER_MEANING or name in OUT_OF_SCOPE:
        return None
    ours = moved_module(module)
    if is_module(f"{ours}.{name}") or name in names_of(ours):
        return ours
    return "modelwright" if package_of(module) == "transformers" and name in names_of("modelwright") else None


def why_kept(name: str) -> str:
    """Return the reason why a name stays with its package."""
    if name in OTHER_MEANING:
        return OTHER_MEANING[name]
    if name in OUT_OF_SCOPE:
        return "out of scope: it works on models of transformers"
    return "modelwright does not have it"


def moved_path(dotted: str) -> str | None:
    """Return what the attribute path "transformers.models.bert.BertModel.from_pretrained" is here, None if it is not.

    Only the part that names a module or a name in one counts; what follows is the object's own.
    """
    parts = dotted.split(".")
    module = parts[0]
    for index, name in enumerate(parts[1:], start=1):
        if is_module(moved_module(f"{module}.{name}")):
            module = f"{module}.{name}"
            continue
        found = destination(module, name)
        return None if found is None else ".".join([found, *parts[index:]])
    return moved_module(module)


@cache
def is_module(module: str) -> bool:
    """Tell whether we have a module of this name."""
    path = _PACKAGE.parent.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


@cache
def names_of(module: str) -> frozenset[str]:
    """Return the names that can be imported from a module of ours; none if there is no such module."""
    if module == "modelwright":
        return frozenset(_public.names()) | _public.submodules(module) | {"__version__"}
    if module in _public.DOORS:
        return frozenset(name for names in _public.DOORS[module].values() for name in names)
    if not is_module(module):
        return frozenset()
    path = _PACKAGE.parent.joinpath(*module.split("."))
    path = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
    return frozenset(name for name in found if not name.startswith("_"))
