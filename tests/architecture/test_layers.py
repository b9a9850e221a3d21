"""Imports run downwards only, also those inside functions."""

from pathlib import Path

import pytest
import tree

# Room -> the rooms that it may import; `core` is allowed to all.
_ONE = {"outputs", "hub", "config", "tokenization", "nn", "attention", "quantization"}
_TWO = _ONE | {"checkpoint"}
_THREE = _TWO | {"generation", "placement"}
_FOUR = _THREE | {"pretrained"}
_FIVE = _FOUR | {"models", "export", "training"}
MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "outputs": set(),
    "hub": set(),
    "config": {"hub"},
    "tokenization": {"hub", "config"},
    "nn": set(),
    "attention": {"nn"},
    "quantization": {"nn"},
    "checkpoint": _ONE,
    "generation": _TWO,
    "placement": _TWO,
    "pretrained": _THREE,
    "models": _FOUR,
    "export": _FOUR,
    "training": _FOUR,
    "keras_layers": _FOUR,
    "migration": set(),
    "cli": _FIVE | {"migration"},
}
# Families of models that may import another one.
FAMILY_MAY_IMPORT = {"qdqbert": {"bert"}, "encoder_decoder": {"auto"}}

# Packages that a module of ours must not import while it is itself imported: optional ones, and slow ones.
ONLY_WHERE_USED = {"accelerate", "keras", "libcst", "matplotlib", "onnx", "onnxruntime", "onnxscript", "peft", "psutil"}
# A room that is about an optional package; what imports the room does so where it is used.
ROOM_OF = {"libcst": "migration"}
NEVER = {"transformers", "tensorflow", "flax"}
WITHOUT_TORCH = {"core", "hub", "config", "outputs"}


def room_of(module: str) -> str | None:
    """Return the room of a module of ours: "" for the root and the name table, None if the module is not ours."""
    parts = module.split(".")
    if parts[0] != "modelwright":
        return None
    return "" if len(parts) == 1 or parts[1] == "_public" else parts[1]


def files_of_rooms() -> list[Path]:
    return [path for path in tree.source_files() if path.parent != tree.PACKAGE and not tree.is_door(path)]


FILES = pytest.mark.parametrize("path", files_of_rooms(), ids=lambda path: tree.module_name(path))


def test_there_is_something_to_look_at() -> None:
    assert {"core", "config", "outputs", "models"} <= {room_of(tree.module_name(path)) for path in files_of_rooms()}


def test_every_room_has_a_place_in_the_table() -> None:
    doors = {path.parent.name for path in tree.source_files() if path.name == "__init__.py" and tree.is_door(path)}
    rooms = {entry.name for entry in tree.PACKAGE.iterdir() if entry.is_dir() and list(entry.glob("*.py"))}
    assert rooms - doors - set(MAY_IMPORT) == set()


@FILES
def test_imports_run_downwards(path: Path) -> None:
    here = room_of(tree.module_name(path))
    assert here is not None
    for item in tree.imports_of(path):
        room = room_of(item.module)
        if room is None or room in (here, "core") or item.module == "modelwright._public":
            continue
        assert room in MAY_IMPORT[here], f"{item}: {here} may import only {sorted(MAY_IMPORT[here]) or 'core'}"


@FILES
def test_families_do_not_import_each_other(path: Path) -> None:
    parts = tree.module_name(path).split(".")
    if parts[1] != "models" or len(parts) < 3:
        return
    for item in tree.imports_of(path):
        target = item.module.split(".")
        if target[:2] == ["modelwright", "models"] and len(target) > 2 and target[2] != parts[2]:
            assert target[2] in FAMILY_MAY_IMPORT.get(parts[2], set()), str(item)


@FILES
def test_heavy_and_optional_packages_are_imported_where_they_are_used(path: Path) -> None:
    room = room_of(tree.module_name(path))
    for item in tree.imports_of(path):
        package = item.module.partition(".")[0]
        assert package not in NEVER, str(item)
        if item.top_level:
            about = package in ROOM_OF and ROOM_OF[package] == room
            assert package not in ONLY_WHERE_USED or about, f"{item}; import it inside the function that needs it"
            assert room_of(item.module) not in ROOM_OF.values() or room in ROOM_OF.values(), (
                f"{item}; import it where used"
            )
            assert not (package == "torch" and room in WITHOUT_TORCH), f"{item}; {room} is a room without torch"


def test_the_checker_sees_imports_inside_functions_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "ROOT", tmp_path)
    path = tmp_path / "sample.py"
    path.write_text(
        "import torch\n"
        "def f():\n    from modelwright.models import reformer\n    import_module('modelwright.cli')\n"
        "if TYPE_CHECKING:\n    import accelerate\n"
    )
    found = {(item.module, item.top_level) for item in tree.imports_of(path)}
    assert found == {
        ("torch", True),
        ("modelwright.models.reformer", False),
        ("modelwright.cli", False),
        ("accelerate", False),
    }
