"""JSON files: errors that name file and cause, writes that are never seen half done."""

import os
from pathlib import Path

import pytest

from modelwright.config.configuration import PretrainedConfig
from modelwright.config.json_file import read_json, write_json
from modelwright.core.errors import ConfigError, RepoError


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": [1, None], "a": "ü"})
    assert path.read_text() == '{\n  "a": "\\u00fc",\n  "b": [\n    1,\n    null\n  ]\n}\n'
    assert read_json(path) == {"a": "ü", "b": [1, None]}
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"line 1, column 1 is not.*The file is empty"),
        (b'{"a": 1,\n  b}', r"line 2, column 3 is not"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "The file is a web page"),
        (b"[1]", r"expected a JSON object \(\{\.\.\.\}\), found a list"),
        (b'{"a": "\xff"}', "expected JSON text in UTF-8, found the byte 0xff"),
        (b'{"a":' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(RepoError, match=r"none\.json: expected a JSON file, but there is no such file"):
        read_json(tmp_path / "none.json")
    with pytest.raises(RepoError, match="cannot be read: Is a directory"):
        read_json(tmp_path)


def test_a_value_that_json_does_not_have_names_the_key_and_leaves_the_file(tmp_path: Path) -> None:
    config = PretrainedConfig(hidden_act="relu")
    config.save_pretrained(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    config.hidden_act = print
    with pytest.raises(ConfigError, match="PretrainedConfig: the value of 'hidden_act' cannot be written as JSON"):
        config.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(RepoError, match=r"a\.json: the file cannot be written: No space left on device"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_symbolic_link_stays_a_link(tmp_path: Path) -> None:
    write_json(tmp_path / "real.json", {"a": 1})
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    write_json(tmp_path / "link.json", {"a": 2})
    assert (tmp_path / "link.json").is_symlink()
    assert read_json(tmp_path / "real.json") == {"a": 2}


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", {})
    finally:
        os.umask(old)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640
