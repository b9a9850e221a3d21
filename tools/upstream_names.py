"""Write the table of public names of transformers, within our scope, that the tests in tests/migration compare with.

    python tools/upstream_names.py tests/migration/upstream_names.json PYTHON_WITH_4_37 PYTHON_WITH_4_57

The arguments after the file are Python programs in whose environments a transformers 4.x is installed. Of each version:
the names that its root serves, with the module that has them; of each module in scope the names that it defines; and
the parameters of functions, and of the public methods of classes, that the root serves. No code of upstream is copied.
"""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FAMILIES = ("auto", "bert", "encoder_decoder", "gpt2", "llama", "prophetnet", "qdqbert", "reformer", "t5")
MODULES = (
    *("activations", "activations_tf", "cache_utils", "configuration_utils", "data.data_collator", "file_utils"),
    *("generation.configuration_utils", "generation.logits_process", "generation.stopping_criteria"),
    *("generation.streamers", "generation.utils", "masking_utils", "modeling_attn_mask_utils", "modeling_layers"),
    *("modeling_outputs", "modeling_rope_utils", "modeling_tf_utils", "modeling_utils", "pytorch_utils", "tf_utils"),
    *("tokenization_utils", "tokenization_utils_base", "tokenization_utils_fast"),
    *("utils.generic", "utils.import_utils", "utils.logging"),
)
_ROOT_SCRIPT = """
import json, transformers
root = {name: module for name, module in transformers._class_to_module.items()}
print(json.dumps([transformers.__version__, transformers.__path__[0], root]))
"""


def in_scope(module: str) -> bool:
    """Tell whether a module, named from the root of transformers, is one whose names we look at."""
    parts = module.split(".")
    return module in MODULES or (parts[0] == "models" and len(parts) > 1 and parts[1] in FAMILIES)


def public(names: dict[str, Any]) -> dict[str, Any]:
    """Return the entries whose names do not begin with an underscore."""
    return {name: value for name, value in sorted(names.items()) if not name.startswith("_")}


def parameters(node: ast.FunctionDef) -> list[str]:
    """Return the names of the parameters, without self, cls and those with stars."""
    listed = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return [name for name in listed if name not in ("self", "cls")]


def methods(node: ast.ClassDef) -> dict[str, list[str]]:
    """Return the parameters of the public methods that a class itself defines, and of its constructor and call."""
    found = {each.name: parameters(each) for each in node.body if isinstance(each, ast.FunctionDef)}
    return {name: found[name] for name in sorted(found) if not name.startswith("_") or name in ("__init__", "__call__")}


def definitions(path: Path) -> dict[str, Any]:
    """Return what a file defines at its top: parameters of functions, methods of classes, None for other values."""
    found: dict[str, Any] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = parameters(node)
        elif isinstance(node, ast.ClassDef):
            found[node.name] = methods(node)
        elif isinstance(node, ast.Assign):
            found |= {target.id: None for target in node.targets if isinstance(target, ast.Name)}
    found.pop("logger", None)
    return public(found)


def read_version(python: str) -> dict[str, Any]:
    """Return the table of the transformers that a Python program has."""
    run = subprocess.run([python, "-c", _ROOT_SCRIPT], check=True, capture_output=True, text=True)
    version, folder, root = json.loads(run.stdout.splitlines()[-1])
    package = Path(folder)
    files = {".".join(path.relative_to(package).with_suffix("").parts): path for path in package.rglob("*.py")}
    modules = {
        module: definitions(path)
        for module, path in sorted(files.items())
        if in_scope(module) and not module.endswith("__init__") and not module.rpartition(".")[2].startswith("convert_")
    }
    signatures = {
        name: value
        for names in modules.values()
        for name, value in names.items()
        if value and (name in root or not name[0].isupper())
    }
    served = {name: module for name, module in root.items() if in_scope(module) or module == "generation"}
    return {
        "version": version,
        "root": public(served),
        "modules": {module: sorted(names) for module, names in modules.items() if names},
        "signatures": dict(sorted(signatures.items())),
    }


def main() -> None:
    """Read the versions and write the file."""
    target, *pythons = sys.argv[1:]
    if not pythons:
        sys.exit(__doc__)
    tables = [read_version(python) for python in pythons]
    command = f"python tools/upstream_names.py {target} <python> ... with transformers " + ", ".join(
        table["version"] for table in tables
    )
    text = json.dumps({"made_by": command, "versions": tables}, separators=(",", ":")).replace('],"', '],\n"')
    Path(target).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
