"""Without Keras: the library imports, and a name that needs Keras says which extra has it."""

import subprocess
import sys

import pytest

from modelwright import _public

NAMES = sorted(
    name for home, names in _public.PUBLIC.items() if home.startswith("modelwright.keras_") for name in names
)
# Makes Python find no Keras, whether it is installed or not.
BLOCK = "import sys; sys.modules['keras'] = None\n"


def run(code: str, environment: dict[str, str] | None = None) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_there_are_names() -> None:
    assert {"TFConv1D", "TFSequenceSummary", "TFSharedEmbeddings", "get_initializer", "keras_serializable",
            "shape_list", "TFCausalLanguageModelingLoss", "TFQuestionAnsweringLoss"} <= set(NAMES)  # fmt: skip


@pytest.mark.parametrize("module", ["modelwright", "modelwright.modeling_tf_utils", "modelwright.keras_layers"])
def test_a_name_says_which_extra_to_install(module: str) -> None:
    code = f"""
import {module}
from modelwright import MissingPackageError
for name in {NAMES}:
    try:
        getattr({module}, name)
    except MissingPackageError as error:
        print(error)
"""
    wanted = (
        "modelwright.keras_layers needs the package 'keras', which is not installed: pip install 'modelwright[keras]'"
    )
    assert run(BLOCK + code).splitlines() == [wanted] * len(NAMES)


def test_the_library_and_its_doors_import_no_keras() -> None:
    code = "import modelwright.modeling_tf_utils, modelwright.keras_layers, sys; print('keras' in sys.modules)"
    assert run(code) == "False\n"


def test_a_backend_that_is_not_installed_is_named() -> None:
    # A Keras that cannot import its backend, as the real one does.
    code = """
import sys, types
import modelwright.core.optional as optional
from modelwright import MissingPackageError
optional.is_available = lambda package: package != "tensorflow"
def imported(name):
    raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
optional.importlib = types.SimpleNamespace(import_module=imported)
try:
    import modelwright.keras_layers.conv1d
except MissingPackageError as error:
    print(error)
"""
    assert "which is set to 'tensorflow' and is not installed: install it, or set the environment variable" in run(code)


def test_an_old_keras_is_refused() -> None:
    code = """
import sys, types
from importlib.machinery import ModuleSpec
old = sys.modules["keras"] = types.ModuleType("keras")
old.__spec__, old.__version__ = ModuleSpec("keras", None), "2.15.0"
from modelwright import MissingPackageError
try:
    import modelwright.keras_layers.conv1d
except MissingPackageError as error:
    print(error)
"""
    assert "needs Keras 3, but Keras 2.15.0 is installed: pip install 'modelwright[keras]'" in run(code)
