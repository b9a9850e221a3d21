"""tools/make_doors.py refuses a table that names what is not there, writes what is missing, removes what is stale."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import tree

from modelwright import _public


@pytest.fixture
def make_doors() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_doors", tree.ROOT / "tools" / "make_doors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = path
    return module


def test_a_name_that_its_home_does_not_define_is_found(make_doors: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_public.PUBLIC, "modelwright.core.errors", ("ConfigError", "NoSuchError"))
    monkeypatch.setitem(_public.DOORS, "modelwright.nowhere", {"modelwright.core.nothing": ("Thing",)})
    assert make_doors.missing() == [
        "PUBLIC: modelwright.core.errors has no NoSuchError",
        "DOORS['modelwright.nowhere']: modelwright.core.nothing has no Thing",
    ]


def test_check_finds_and_writing_mends_a_changed_a_missing_and_a_stale_file(tmp_path: Path) -> None:
    shutil.copytree(tree.PACKAGE, tmp_path / "src" / "modelwright", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(tree.ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    package = tmp_path / "src" / "modelwright"
    door = package / "configuration_utils.py"
    good = door.read_text()
    door.write_text(good.replace("PreTrainedConfig", "OtherConfig"))
    (package / "file_utils.py").unlink()
    (package / "old_door.py").write_text(
        f'"""Old."""\n{tree.DOOR_MARK} from _public.py; change the table, not this file.\n'
    )

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(tmp_path / "tools" / "make_doors.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    found = run("--check")
    assert found.returncode == 1
    for name in ("configuration_utils.py", "file_utils.py", "old_door.py"):
        assert f"out of date: modelwright/{name} (run `make doors`)" in found.stderr
    assert run().returncode == 0
    assert door.read_text() == good
    assert (package / "file_utils.py").exists()
    assert not (package / "old_door.py").exists()
    assert run("--check").returncode == 0
