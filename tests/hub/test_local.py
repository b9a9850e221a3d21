"""Repositories hand out the files of their folder and of nothing else."""

import pytest

from modelwright.core.errors import InputError, RepoError
from modelwright.hub.local import LocalRepo
from modelwright.hub.names import add_variant, entry_names, is_shard_of, shard_name
from modelwright.hub.open import open_repo


def test_finds_files(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "sub").mkdir()
    repo = open_repo(tmp_path)
    assert repo.has("config.json")
    assert not repo.has("sub")
    assert repo.path("config.json") == tmp_path / "config.json"
    assert repo.files() == ["config.json"]


def test_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RepoError, match=r"there is no file 'confg.json'\. Did you mean 'config.json'\?"):
        LocalRepo(tmp_path).path("confg.json")


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", "C:\\secret", "C:secret", "", "a\0b"]
)
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    (tmp_path / "secret").write_text("s")
    (tmp_path / "repo" / "a").mkdir(parents=True)
    repo = LocalRepo(tmp_path / "repo")
    for call in (repo.path, repo.has):
        with pytest.raises(RepoError, match="expected the name of a file inside this folder"):
            call(name)


def test_links_out_of_the_folder(tmp_path):
    (tmp_path / "outside").write_text("weights")
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "inside").write_text("x")
    (folder / "out").symlink_to(tmp_path / "outside")
    (folder / "in").symlink_to("inside")
    (folder / "gone").symlink_to("nowhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("x")
    (folder / "sub").symlink_to(tmp_path / "elsewhere")
    repo = LocalRepo(folder)
    assert repo.path("out").read_text() == "weights"  # chosen by a person
    assert repo.path("in", contained=True).read_text() == "x"
    for name in ("out", "sub/file"):
        with pytest.raises(RepoError, match=r"is a link that leaves .*Nothing was read"):
            repo.path(name, contained=True)
    assert not repo.has("gone")
    with pytest.raises(RepoError, match="is a link to 'nowhere', which does not exist"):
        repo.path("gone")


def test_hub_cache_links_are_inside(tmp_path):
    cache = tmp_path / "models--org--name"
    snapshot = cache / "snapshots" / "abc"
    (snapshot / "sub").mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "blobs" / "123").write_text("weights")
    (tmp_path / "other").write_text("secret")
    (snapshot / "model.safetensors").symlink_to("../../blobs/123")
    (snapshot / "sub" / "model.safetensors").symlink_to("../../../blobs/123")
    (snapshot / "leak").symlink_to(tmp_path / "other")
    assert LocalRepo(snapshot).path("model.safetensors", contained=True).read_text() == "weights"
    below = open_repo(snapshot, subfolder="sub")
    assert below.path("model.safetensors", contained=True).read_text() == "weights"
    with pytest.raises(RepoError, match="leaves"):
        LocalRepo(snapshot).path("leak", contained=True)


def test_open_repo_says_what_is_wrong(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RepoError, match="expected a folder on this machine, found none"):
        open_repo(tmp_path / "nowhere")
    with pytest.raises(RepoError, match="expected the folder of a model, found a file"):
        open_repo(tmp_path / "file")
    with pytest.raises(RepoError, match="expected a subfolder 'nope', found none"):
        open_repo(tmp_path, subfolder="nope")
    with pytest.raises(RepoError, match="inside this folder"):
        open_repo(tmp_path, subfolder="..")
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "up").symlink_to(tmp_path)
    with pytest.raises(RepoError, match="leaves the folder"):
        open_repo(tmp_path / "repo", subfolder="up")
    with pytest.raises(OSError, match="expected a folder"):
        LocalRepo(tmp_path / "file")


def test_journal_shows_the_committed_files(tmp_path):
    stage = tmp_path / ".modelwright-tmp-1"
    stage.mkdir()
    (stage / "config.json").write_text("new")
    (tmp_path / "config.json").write_text("old")
    (tmp_path / "gone.json").write_text("old")
    journal = tmp_path / ".modelwright.journal.json"
    journal.write_text(
        '{"version": 1, "staging": ".modelwright-tmp-1", "put": ["config.json"], "remove": ["gone.json"]}'
    )
    repo = LocalRepo(tmp_path)
    assert repo.path("config.json").read_text() == "new"
    assert not repo.has("gone.json")
    assert "gone.json" not in repo.files()
    (stage / "config.json").replace(tmp_path / "config.json")
    assert repo.path("config.json").read_text() == "new"


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        '{"version": 2}',
        '{"version": 1, "staging": "sub", "put": [], "remove": []}',
        '{"version": 1, "staging": ".modelwright-tmp-1", "put": ["../x"], "remove": []}',
        '{"version": 1, "staging": ".modelwright-tmp-1", "put": [], "remove": ["a/b"]}',
        '{"version": 1, "staging": ".modelwright-tmp-1/..", "put": [], "remove": []}',
    ],
)
def test_broken_journal_is_an_error(tmp_path, text):
    (tmp_path / ".modelwright.journal.json").write_text(text)
    with pytest.raises(RepoError, match=r"modelwright\.journal\.json.*expected"):
        LocalRepo(tmp_path).has("config.json")


def test_variants_and_shards():
    assert add_variant("model.safetensors", "fp16") == "model.fp16.safetensors"
    assert entry_names("fp16")[1] == "model.safetensors.index.fp16.json"
    assert shard_name("model.fp16.safetensors", 0, 2) == "model.fp16-00001-of-00002.safetensors"
    assert is_shard_of("model-00001-of-00002.safetensors", "model.safetensors")
    for other in (
        "model.fp16-00001-of-00002.safetensors",
        "modelling-00001-of-00002.safetensors",
        "model-00001-of-00002.bin",
        "model-1-of-2.safetensors",
    ):
        assert not is_shard_of(other, "model.safetensors")
    for bad in ("../x", "a/b", "", "a.b"):
        with pytest.raises(InputError, match="variant: expected"):
            add_variant("model.safetensors", bad)
