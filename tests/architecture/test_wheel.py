"""The wheel holds the package with its type information, and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tree

from modelwright import __version__


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=tree.ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_it_holds_the_package_and_its_types(wheel: zipfile.ZipFile) -> None:
    files = {path.relative_to(tree.PACKAGE.parent).as_posix() for path in tree.source_files()}
    names = set(wheel.namelist())
    assert files | {"modelwright/py.typed", "modelwright/__init__.pyi"} <= names
    assert f"modelwright-{__version__}.dist-info/licenses/LICENSE" in names


def test_it_holds_no_tests_and_nothing_that_belongs_to_the_workshop(wheel: zipfile.ZipFile) -> None:
    tops = {Path(name).parts[0] for name in wheel.namelist()}
    assert tops == {"modelwright", f"modelwright-{__version__}.dist-info"}
    assert [name for name in wheel.namelist() if "test" in Path(name).name and name.endswith(".py")] == []


def test_its_metadata(wheel: zipfile.ZipFile) -> None:
    info = f"modelwright-{__version__}.dist-info"
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in metadata
    requirements = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:")]
    assert not [line for line in requirements if "transformers" in line and "parity" not in line]
    assert "modelwright = modelwright.cli.main:main" in wheel.read(f"{info}/entry_points.txt").decode()
