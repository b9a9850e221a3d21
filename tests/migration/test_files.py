"""Which files of a folder are Python, and that they are written back in their own encoding."""

from pathlib import Path

import pytest

from modelwright.core.errors import InputError, RepoError
from modelwright.migration.files import find_files, read_source


def test_files_of_folders_without_environments_and_hidden_ones(tmp_path: Path) -> None:
    for name in ("a.py", "b/c.pyi", "b/notes.txt", ".git/d.py", "env/pyvenv.cfg", "env/e.py", "b/__pycache__/f.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    assert find_files([tmp_path, tmp_path / "a.py"]) == [tmp_path / "a.py", tmp_path / "b" / "c.pyi"]
    assert find_files([tmp_path / "b" / "notes.txt"]) == [tmp_path / "b" / "notes.txt"]


def test_a_folder_without_python_and_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected Python files in this folder, found none"):
        find_files([tmp_path])
    with pytest.raises(RepoError, match="there is no such file or folder"):
        find_files([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    "data",
    [
        "x = 'é'\r\n".encode(),
        b"\xef\xbb\xbfx = 1\n",
        "# -*- coding: latin-1 -*-\nx = 'é'\n".encode("latin-1"),
        b"",
    ],
)
def test_a_text_goes_back_as_it_came(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(data)
    source = read_source(path)
    assert source.encoded(source.text) == data
    assert "\ufeff" not in source.text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x7fELF\0\0", "expected Python text, found a binary file"),
        (b"x = '\xff\xfe'\n", "in the encoding that it declares"),
        (b"# coding: nonsense\n", "in the encoding that it declares: unknown encoding"),
    ],
)
def test_what_is_no_text_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_source(path)
