"""Models, configs and tokenizers pushed to a hub on the loopback by the real client, and read back."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from modelwright import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    ByteTokenizer,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
)
from modelwright.core import logging
from modelwright.core.errors import CheckpointError, HubError, InputError, RepoNotFoundError, UnknownArgumentError

TOKEN = "hf_writer"


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=2, n_head=2)).eval()


@pytest.fixture
def cached(tmp_path):
    """The keywords that give a test a cache of its own."""
    return {"cache_dir": tmp_path / "cache"}


@pytest.fixture
def said(caplog):
    logging.forget_once()
    return lambda: [record.getMessage() for record in caplog.records]


def same(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_was_pushed_is_loaded_back(hub, model, cached):
    model.add_model_tags(["tiny"])
    info = model.push_to_hub("org/toy", token=TOKEN, tags="toy", commit_message="First", commit_description="Why")
    repo = hub.repos["org/toy"]
    assert info.oid == repo.branches["main"]
    assert repo.messages == ["", "First\n\nWhy"]
    assert sorted(repo.head) == [
        ".gitattributes",
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "modelwright.manifest.json",
    ]
    assert repo.head["README.md"].decode() == "---\nlibrary_name: modelwright\ntags:\n- tiny\n- toy\n---\n\n# toy\n"
    hub.requests()
    for load in (GPT2LMHeadModel.from_pretrained, AutoModelForCausalLM.from_pretrained):
        loaded = load("org/toy", **cached)
        assert same(model, loaded)
        assert loaded.name_or_path == loaded.config.name_or_path == "org/toy"
        assert loaded.config._commit_hash == info.oid
        assert "_commit_hash" not in loaded.config.to_dict()
    requests = hub.requests("GET")
    assert sum("/api/" in line for line in requests) == 2, "one listing a load, also with an auto class"
    downloads = [line for line in requests if "/api/" not in line]
    assert [re.sub(r"\w{40,}", "*", line) for line in downloads] == [
        "GET /org/toy/resolve/main/config.json",
        "GET /cdn/*",
        "GET /org/toy/resolve/*/generation_config.json",
    ]


def test_many_threads_may_load_at_once(hub, model, cached):
    model.push_to_hub("org/toy", token=TOKEN, max_shard_size=4000)
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: AutoModelForCausalLM.from_pretrained("org/toy", **cached), range(8)))
    assert all(same(model, each) for each in loaded)


def test_only_the_files_of_the_wanted_format_are_downloaded(hub, model, cached, tmp_path):
    model.save_pretrained(tmp_path / "all")
    model.save_pretrained(tmp_path / "bin", safe_serialization=False, max_shard_size=4000)
    shards = sorted(path.name for path in (tmp_path / "bin").glob("*.bin"))
    assert len(shards) > 1
    for path in (tmp_path / "bin").glob("pytorch_model*"):
        path.rename(tmp_path / "all" / path.name)
    (tmp_path / "all" / "modelwright.manifest.json").unlink()
    hub.add("org/both", tmp_path / "all")

    def weights(**keywords):
        hub.requests()
        assert same(model, GPT2LMHeadModel.from_pretrained("org/both", force_download=True, **cached, **keywords))
        return [line.split("/")[-1] for line in hub.requests("HEAD") if line.endswith((".bin", ".safetensors"))]

    assert weights() == ["model.safetensors"]
    assert weights(use_safetensors=False) == shards
    with pytest.raises(
        CheckpointError, match=r"org/both \(revision 'main', commit \w{8}\): expected one of model.fp16"
    ):
        GPT2LMHeadModel.from_pretrained("org/both", variant="fp16", **cached)


def test_a_push_replaces_the_checkpoint_whole(hub, model, cached, tmp_path):
    folder = tmp_path / "mine"
    model.save_pretrained(folder, push_to_hub=True, repo_id="org/toy", token=TOKEN, max_shard_size=4000, private=True)
    assert hub.repos["org/toy"].private
    assert len([name for name in hub.repos["org/toy"].head if name.endswith(".safetensors")]) > 1
    (folder / "notes.txt").write_text("mine")
    model.push_to_hub("org/toy", token=TOKEN, variant="fp16")
    with torch.no_grad():
        model.transformer.wte.weight.add_(1)
    model.save_pretrained(folder, push_to_hub=True, repo_id="org/toy", token=TOKEN)
    assert sorted(name for name in hub.repos["org/toy"].head if "model" in name) == [
        "model.fp16.safetensors",
        "model.safetensors",
        "modelwright.manifest.json",
    ]
    assert "notes.txt" not in hub.repos["org/toy"].head, "only what was saved is pushed"
    assert same(model, GPT2LMHeadModel.from_pretrained("org/toy", token=TOKEN, **cached))
    with pytest.raises(RepoNotFoundError, match="token="):
        GPT2LMHeadModel.from_pretrained("org/toy", cache_dir=tmp_path / "other")


def test_branches_and_pull_requests(hub, model, cached):
    model.push_to_hub("org/toy", token=TOKEN)
    old = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        model.transformer.wte.weight.mul_(2)
    model.push_to_hub("org/toy", token=TOKEN, revision="v2")
    assert same(model, AutoModelForCausalLM.from_pretrained("org/toy", revision="v2", **cached))
    loaded = AutoModelForCausalLM.from_pretrained("org/toy", **cached)
    assert all(torch.equal(old[name], tensor) for name, tensor in loaded.state_dict().items())
    info = model.push_to_hub("org/toy", token=TOKEN, create_pr=True)
    assert info.pr_url.endswith("/org/toy/discussions/1")
    assert same(model, AutoModelForCausalLM.from_pretrained("org/toy", revision="refs/pr/1", **cached))


def test_configs_and_tokenizers(hub, model, cached, tmp_path):
    model.config.push_to_hub("org/config", token=TOKEN)
    assert AutoConfig.from_pretrained("org/config", **cached) == model.config
    assert GPT2Config.from_pretrained("org/config", revision="main", n_head=4, **cached).n_head == 4
    settings = GenerationConfig(max_new_tokens=5)
    settings.save_pretrained(tmp_path / "g", push_to_hub=True, repo_id="org/config", token=TOKEN)
    assert GenerationConfig.from_pretrained("org/config", revision="main", **cached) == settings
    tokenizer = ByteTokenizer(model_max_length=7)
    tokenizer.save_pretrained(tmp_path / "org", push_to_hub=True, repo_id="org/tokens", token=TOKEN)
    for load in (AutoTokenizer.from_pretrained, ByteTokenizer.from_pretrained):
        loaded = load("org/tokens", **cached)
        assert (type(loaded), loaded.model_max_length, loaded.name_or_path) == (ByteTokenizer, 7, "org/tokens")
    assert AutoTokenizer.from_pretrained("org/tokens", local_files_only=True, **cached).model_max_length == 7


def test_the_card_keeps_what_it_says(hub, model):
    card = "---\nlicense: mit\ntags:\n- old\n---\n\nAll about it.\n"
    repo = hub.add("org/toy", {"README.md": card})
    model.push_to_hub("org/toy", token=TOKEN)
    assert repo.head["README.md"].decode() == card
    model.add_model_tags("new")
    model.add_model_tags(["new", "old"])
    assert model.model_tags == ["new", "old"]
    model.push_to_hub("org/toy", token=TOKEN)
    assert repo.head["README.md"].decode() == card.replace("- old\n", "- old\n- new\n")


def test_what_cannot_be_pushed(hub, model, tmp_path, monkeypatch):
    folder = tmp_path / "toy"
    with pytest.raises(HubError, match=r"toy: http.* did not take the upload: .*403.*access token .* saved in .*toy\."):
        model.save_pretrained(folder, push_to_hub=True, token="hf_reader")
    assert json.loads((folder / "config.json").read_text())["n_embd"] == 8
    with pytest.raises(UnknownArgumentError, match="unknown keyword 'repo_idd'. Did you mean 'repo_id'"):
        model.config.save_pretrained(folder, push_to_hub=True, repo_idd="x")
    with pytest.raises(InputError, match="use_temp_dir=False is not possible"):
        model.push_to_hub("org/toy", use_temp_dir=False)
    hub.add("org/toy", {"README.md": "---\na: [\n---\n"})
    model.add_model_tags("new")
    with pytest.raises(HubError, match="the metadata of its README.md cannot be read"):
        model.push_to_hub("org/toy", token=TOKEN)
    hub.down = True
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(HubError, match="did not take the upload: .*503"):
        model.config.push_to_hub("org/toy", token=TOKEN)


def test_without_a_push_its_keywords_are_said(model, tmp_path, said):
    ByteTokenizer().save_pretrained(tmp_path, repo_id="org/toy")
    model.config.save_pretrained(tmp_path, private=True)
    assert said() == [
        "ByteTokenizer.save_pretrained: repo_id has no effect without push_to_hub.",
        "GPT2Config.save_pretrained: private has no effect without push_to_hub.",
    ]
