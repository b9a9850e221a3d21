"""What an import loads, counted in modules (seconds are measured in benchmarks/import_time.py)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from modelwright import _public

# Packages that cost more than they give at import time.
HEAVY = {
    "accelerate", "datasets", "huggingface_hub", "jax", "keras", "matplotlib", "onnx", "onnxruntime", "pandas", "peft",
    "rich", "scipy", "sentencepiece", "sklearn", "tensorflow", "tokenizers", "torchaudio", "torchvision",
    "transformers", "typer",
}  # fmt: skip
WITHOUT_TORCH = [
    "modelwright.configuration_utils",
    "modelwright.file_utils",
    "modelwright.modeling_outputs",
    "modelwright.utils",
    "modelwright.utils.generic",
    "modelwright.utils.import_utils",
    "modelwright.utils.logging",
]


def loaded_after(code: str) -> set[str]:
    """Return the names of the modules in a new process after `code`, but for those that Python starts with."""
    report = "import json; print(json.dumps(sorted(set(sys.modules) - before)))"
    source = str(Path(_public.__file__).parents[1])  # this checkout's, whatever is installed
    script = f"import sys; sys.path.insert(0, {source!r}); before = set(sys.modules)\n{code}\n{report}"
    result = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout))


def packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_the_root_loads_next_to_nothing() -> None:
    modules = loaded_after("import modelwright")
    assert {name for name in modules if name.startswith("modelwright")} == {
        "modelwright",
        "modelwright._public",
        "modelwright.core",
        "modelwright.core.lazy",
        "modelwright.core.version",
    }
    assert packages(modules) - set(sys.stdlib_module_names) == {"modelwright"}


@pytest.mark.parametrize("door", WITHOUT_TORCH)
def test_doors_without_torch(door: str) -> None:
    names = ", ".join(name for names in _public.DOORS[door].values() for name in names)
    modules = loaded_after(f"from {door} import {names}")
    assert packages(modules) & (HEAVY | {"torch", "numpy"}) == set()


@pytest.mark.parametrize("door", sorted(_public.DOORS))
def test_importing_a_door_imports_none_of_its_names(door: str) -> None:
    assert packages(loaded_after(f"import {door}")) - set(sys.stdlib_module_names) == {"modelwright"}


def test_a_config_needs_no_torch() -> None:
    assert "torch" not in packages(loaded_after("import modelwright; modelwright.ReformerConfig().to_json_string()"))


@pytest.mark.parametrize("names", ["ReformerModelWithLMHead", "AutoTokenizer, AutoModelForCausalLM, ReformerModel"])
def test_a_model_loads_torch_and_nothing_heavy_beside_it(names: str) -> None:
    # What torch itself imports is not ours to judge.
    added = loaded_after(f"import torch; before = set(sys.modules); from modelwright import {names}")
    assert packages(added) & HEAVY == set()
