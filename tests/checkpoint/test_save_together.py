"""A few files that change together, or not at all."""

import pytest

from modelwright.checkpoint import commit
from modelwright.checkpoint.save_together import save_together
from modelwright.core.errors import CheckpointError, RepoError
from modelwright.hub.local import LocalRepo
from modelwright.hub.names import MANIFEST_NAME


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if not path.name.startswith(".")}


def writers(**texts):
    return {name: lambda path, text=text: path.write_text(text) for name, text in texts.items()}


@pytest.fixture(params=["exchange", "journal"])
def way(request, monkeypatch):
    if request.param == "journal":
        monkeypatch.setattr(commit, "can_exchange", lambda *_: False)
    return request.param


def test_files_appear_change_and_go_together(way, tmp_path):
    folder = tmp_path / "new" / "folder"
    save_together(folder, writers(a="1", b="2"))
    (folder / "other").write_text("stays")
    assert content(folder) == {"a": "1", "b": "2", "other": "stays"}
    save_together(folder, writers(b="3", c="4"), stale=["a", "b", "never"])
    assert content(folder) == {"b": "3", "c": "4", "other": "stays"}


def test_a_manifest_of_a_checkpoint_beside_them_stays(way, tmp_path):
    from modelwright.checkpoint.save import save_checkpoint

    save_checkpoint({}, tmp_path)
    before = (tmp_path / MANIFEST_NAME).read_text()
    save_together(tmp_path, writers(a="1"))
    assert (tmp_path / MANIFEST_NAME).read_text() == before


def test_a_write_that_fails_changes_nothing(way, tmp_path):
    save_together(tmp_path, writers(a="1", b="2"))

    def full(path):
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="No space left on device. The folder still holds what it held before"):
        save_together(tmp_path, {**writers(a="new"), "b": full}, stale=["b"])
    assert content(tmp_path) == {"a": "1", "b": "2"}
    assert [path.name for path in tmp_path.iterdir() if "tmp" in path.name] == []


def test_a_crash_after_the_journal_shows_all_of_the_new(tmp_path, monkeypatch):
    monkeypatch.setattr(commit, "can_exchange", lambda *_: False)
    save_together(tmp_path, writers(a="1", b="2"))

    class Crash(BaseException):
        pass

    def crash(*_):
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(commit, "roll_forward", crash)
        with pytest.raises(Crash):
            save_together(tmp_path, writers(a="3", c="4"), stale=["b"])
    repo = LocalRepo(tmp_path)
    assert (repo.path("a").read_text(), repo.path("c").read_text(), repo.has("b")) == ("3", "4", False)
    save_together(tmp_path, writers(d="5"))
    assert content(tmp_path) == {"a": "3", "c": "4", "d": "5"}


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RepoError, match="file: the folder cannot be made"):
        save_together(tmp_path / "file", writers(a="1"))
