"""Repositories of the hub, read by the real client from a hub on the loopback."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelwright.core import logging
from modelwright.core.errors import GatedRepoError, HubError, HubOfflineError, InputError, RepoError, RepoNotFoundError
from modelwright.hub.download import Download, take_download
from modelwright.hub.open import open_repo

FILES = {
    "config.json": '{"model_type": "toy"}',
    "model.safetensors": b"w" * 1000,
    "pytorch_model.bin": b"p" * 2000,
    "sub/config.json": '{"model_type": "below"}',
}


@pytest.fixture
def open_at(tmp_path):
    """open_repo with a cache of this test's own."""

    def call(name, subfolder="", **keywords):
        return open_repo(name, subfolder=subfolder, download=Download(**{"cache_dir": tmp_path / "cache", **keywords}))

    return call


@pytest.fixture
def said(caplog):
    logging.forget_once()
    return lambda: [record.getMessage() for record in caplog.records]


def test_files_are_listed_in_one_request_and_downloaded_as_asked_for(hub, open_at):
    commit = hub.add("org/toy", FILES).branches["main"]
    repo = open_at("org/toy")
    assert (repo.name, repo.commit_hash) == ("org/toy", commit)
    assert repo.files() == ["config.json", "model.safetensors", "pytorch_model.bin"]
    assert repo.has("model.safetensors")
    assert not repo.has("other")
    assert hub.requests() == ["GET /api/models/org/toy/revision/main"]
    assert repo.path("config.json").read_text() == FILES["config.json"]
    assert repo.path("model.safetensors", contained=True).read_bytes() == FILES["model.safetensors"]
    digest = hashlib.sha256(FILES["model.safetensors"]).hexdigest()
    assert hub.requests() == [
        "HEAD /org/toy/resolve/main/config.json",
        "GET /org/toy/resolve/main/config.json",
        f"HEAD /org/toy/resolve/{commit}/model.safetensors",
        f"GET /cdn/{digest}",
    ]
    warm = open_at("org/toy")
    assert warm.path("config.json") == repo.path("config.json")
    assert warm.path("model.safetensors").is_file()
    assert hub.requests() == ["GET /api/models/org/toy/revision/main", "HEAD /org/toy/resolve/main/config.json"]


def test_a_load_stays_on_one_commit(hub, open_at):
    repo = hub.add("org/toy", {"a": "1", "b": "1"})
    opened = open_at("org/toy")
    assert opened.path("a").read_text() == "1"
    repo.commit({"a": b"2", "b": b"2"})
    assert opened.path("b").read_text() == "1"
    again = open_at("org/toy", commit_hash=opened.commit_hash)
    hub.requests()
    assert again.path("b").read_text() == "1"
    assert hub.requests() == [], "the listing and the file of a commit are known"
    late = open_at("org/toy")
    repo.commit({"a": b"3", "b": b"3"})
    with pytest.raises(HubError, match="the revision moved to commit .* while it was read. Load it again"):
        late.path("a")
    assert open_at("org/toy").path("a").read_text() == "3"


def test_revisions_subfolders_and_force_download(hub, open_at):
    repo = hub.add("org/toy", FILES)
    first = repo.branches["main"]
    repo.commit({"config.json": b"{}"}, "v2")
    assert open_at("org/toy", revision="v2").path("config.json").read_text() == "{}"
    assert open_at("org/toy", revision=first[:9]).commit_hash == first
    below = open_at("org/toy", "sub")
    assert below.files() == ["config.json"]
    assert "below" in below.path("config.json").read_text()
    hub.requests()
    fresh = open_at("org/toy", force_download=True)
    fresh.path("config.json")
    fresh.path("config.json")
    assert hub.requests("GET") == ["GET /api/models/org/toy/revision/main", "GET /org/toy/resolve/main/config.json"]


def test_what_is_missing_is_named_with_the_way_out(hub, open_at):
    commit = hub.add("org/toy", FILES).branches["main"][:8]
    repo = open_at("org/toy")
    with pytest.raises(
        RepoError, match=rf"org/toy \(revision 'main', commit {commit}\): there is no file 'confg.json'"
    ):
        repo.path("confg.json")
    with pytest.raises(RepoError, match="there is no folder 'nope'"):
        open_at("org/toy", "nope")
    with pytest.raises(RepoError, match="inside this folder"):
        repo.path("../x")
    with pytest.raises(RepoNotFoundError, match="org/toy: the repository has no branch, tag or commit 'v9'"):
        open_at("org/toy", revision="v9")
    with pytest.raises(
        RepoNotFoundError, match=r"'org/nope' is no folder on this machine .*, and http.* has no model re"
    ):
        open_at("org/nope")
    with pytest.raises(RepoNotFoundError, match="no name of a hub repository"):
        open_at("a--b/c..d")


def test_private_and_gated_repositories(hub, open_at, said):
    hub.add("org/mine", FILES, private=True, readers=("hf_reader",))
    with pytest.raises(RepoNotFoundError, match="if it is private, log in with `hf auth login`, or pass token="):
        open_at("org/mine")
    with pytest.raises(RepoNotFoundError) as caught:
        open_at("org/mine", token="hf_other")
    assert "hf_other" not in str(caught.value)
    assert open_at("org/mine", token="hf_reader").path("config.json").is_file()
    assert open_at("org/mine").path("config.json").is_file(), "what this machine has is used"
    assert said()[0].startswith("org/mine: commit ")
    assert "from the cache, is used. 'org/mine' is no folder" in said()[0]
    hub.add("org/gated", FILES, gated=True, readers=("hf_reader",))
    repo = open_at("org/gated")
    with pytest.raises(
        GatedRepoError, match=r"org/gated .*: config.json: the repository is gated. Ask its owner .*token"
    ):
        repo.path("config.json")
    assert open_at("org/gated", token="hf_reader").path("config.json").is_file()
    with pytest.raises(HubError, match="token=True asks for the token of this machine, and there is none"):
        open_at("org/other", token=True)


def test_without_the_hub_the_cache_is_used_and_said(hub, open_at, said):
    commit = hub.add("org/toy", FILES).branches["main"]
    open_at("org/toy").path("config.json")
    hub.requests()
    local = open_at("org/toy", local_files_only=True)
    assert hub.requests() == []
    assert said() == []
    hub.down = True
    for repo in (local, open_at("org/toy"), open_at("org/toy", local_files_only=True, revision=commit)):
        assert (repo.name, repo.commit_hash) == ("org/toy", commit)
        assert repo.files() == ["config.json"]
        assert not repo.has("model.safetensors")
        assert repo.path("config.json").read_text() == FILES["config.json"]
        with pytest.raises(
            HubOfflineError, match=r"of which the cache is used.*no file 'model.safetensors'.* Load it on"
        ):
            repo.path("model.safetensors")
    assert len(said()) == 1
    assert said()[0].startswith(
        f"org/toy: commit {commit[:8]}, from the cache, is used. org/toy (revision 'main'): http"
    )
    with pytest.raises(HubOfflineError, match=r"org/other .*local_files_only=True forbids to ask .* does not hold it"):
        open_at("org/other", local_files_only=True)
    with pytest.raises(HubError, match=r"org/toy .* refused: .*503"):
        open_at("org/toy", force_download=True)


def test_a_hub_that_goes_away_in_the_middle(hub, open_at, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the client's attempts
    hub.add("org/toy", FILES)
    fresh, forced = open_at("org/toy"), open_at("org/toy", force_download=True)
    hub.down = True
    for repo in (fresh, forced):
        with pytest.raises(HubError, match=r"org/toy \(revision 'main'\): config.json: http.*503"):
            repo.path("config.json")


def test_a_hub_that_is_not_there(tmp_path):
    code = "from modelwright import AutoConfig; AutoConfig.from_pretrained('org/nobody')"
    env = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert (
        "HubOfflineError: org/nobody (revision 'main'): it is no folder on this machine, http://127.0.0.1:9 can"
        in done.stderr
    )
    assert "cannot be reached (ConnectionRefusedError: [Errno 111] Connection refused)" in done.stderr
    assert "does not hold it. Check the connection, or give the path of a folder." in done.stderr


def test_a_name_or_a_path(hub, open_at, tmp_path, monkeypatch):
    hub.add("toy", FILES)
    monkeypatch.chdir(tmp_path)
    assert open_at("toy").name == "toy"
    (tmp_path / "toy").mkdir()
    assert open_at("toy").commit_hash is None, "a folder of this name comes first"
    for path in ("./gone", "/gone/away", "a/b/c", "gone/", "-x"):
        with pytest.raises(
            RepoError, match="expected a folder on this machine, found none .*, and it is not the name of a"
        ):
            open_at(path)
    with pytest.raises(RepoError, match="a path object never is one; pass a str"):
        open_at(Path("org/toy"))


def test_keywords(said, tmp_path):
    download, rest = take_download("X", {"revision": "v1", "_commit_hash": "abc", "use_auth_token": "t", "other": 1})
    assert download == Download(revision="v1", token="t", commit_hash="abc")
    assert rest == {"other": 1}
    assert take_download("X", download.keywords()) == (download, {})
    assert take_download("X", {"proxies": None, "mirror": None, "token": None}) == (Download(), {})
    assert said() == []
    take_download("X", {"mirror": "m", "resume_download": True})
    assert [line.split(":")[1] for line in said()] == [
        " resume_download changes nothing",
        " mirror changes nothing",
    ]
    with pytest.raises(NotImplementedError, match="X: proxies is not possible: .* set HTTPS_PROXY"):
        take_download("X", {"proxies": {"https": "p"}})
    with pytest.raises(InputError, match="expected token or use_auth_token"):
        take_download("X", {"token": "a", "use_auth_token": "a"})
    with pytest.raises(InputError, match="expected local_files_only or force_download, got both"):
        take_download("X", {"local_files_only": True, "force_download": True})
    for name, value, expected in (
        ("revision", 3, "str"),
        ("force_download", "yes", "bool"),
        ("cache_dir", 1, "str or a path"),
        ("proxies", "p", "dict"),
    ):
        with pytest.raises(InputError, match=f"X: expected {name} to be {expected} or None, got {value!r}"):
            take_download("X", {name: value})


def test_a_folder_says_which_keywords_it_has_no_use_for(said, tmp_path):
    for _ in range(2):
        open_repo(tmp_path, download=Download(token="hf_secret", local_files_only=True, commit_hash="abc"))
    assert said() == [f"{tmp_path}: token has no effect: it is about downloads, and this is local."]


OFFLINE = """
import os, socket, sys
def refuse(*_, **__):
    raise AssertionError("a socket was opened")
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
from modelwright import AutoConfig
from modelwright.core.errors import HubOfflineError
switch = {"local_files_only": True} if sys.argv[1] == "argument" else {}
assert AutoConfig.from_pretrained("org/toy", **switch).hidden_size == 24
try:
    AutoConfig.from_pretrained("org/other", **switch)
except HubOfflineError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("switch", "name"), [("argument", "local_files_only=True"), ("HF_HUB_OFFLINE", "HF_HUB_OFFLINE")]
)
def test_offline_no_socket_is_opened(hub, monkeypatch, switch, name):
    hub.add("org/toy", {"config.json": '{"model_type": "gpt2", "n_embd": 24}'})
    open_repo("org/toy").path("config.json")
    if switch != "argument":
        monkeypatch.setenv(switch, "1")
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", OFFLINE, switch]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"org/other (revision 'main'): it is no folder on this machine, {name} forbids to ask" in done.stdout
