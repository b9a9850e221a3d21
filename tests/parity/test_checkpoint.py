"""Checkpoints written here and by transformers 4.57.1 are the same files, and read by either."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from modelwright.checkpoint.load import load_into, module_targets, tied_groups
from modelwright.checkpoint.open import open_checkpoint
from modelwright.checkpoint.plan import make_load_plan
from modelwright.checkpoint.save import save_checkpoint
from modelwright.checkpoint.strictness import Strictness
from modelwright.checkpoint.verify import verify
from modelwright.hub.local import LocalRepo

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, vocab_size=100,
        max_position_embeddings=20,
    )  # fmt: skip
    return transformers.BertForMaskedLM(config).eval()


def config_text(model):
    # What upstream would write: the class and the dtype are noted on saving.
    config = transformers.BertConfig.from_dict(model.config.to_dict())
    config.architectures, config.dtype = [type(model).__name__], "float32"
    return config.to_json_string()


def save_ours(model, folder, **options):
    save_checkpoint(
        model.state_dict(),
        folder,
        tied=tied_groups(model),
        extra_files={"config.json": config_text(model)},
        total_parameters=model.num_parameters(),
        **options,
    )


@pytest.mark.parametrize("size", ["5KB", "10KB", "30KB", "100kB", "5GB"])
@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("safe", [True, False])
def test_the_same_files(model, tmp_path, size, variant, safe):
    model.save_pretrained(tmp_path / "theirs", max_shard_size=size, variant=variant, safe_serialization=safe)
    save_ours(model, tmp_path / "ours", max_shard_size=size, variant=variant, safe=safe)
    theirs = {path.name: path for path in (tmp_path / "theirs").iterdir()}
    ours = {path.name: path for path in (tmp_path / "ours").iterdir() if "manifest" not in path.name}
    theirs.pop("generation_config.json", None)
    assert sorted(ours) == sorted(theirs)
    for name, path in theirs.items():
        if name.endswith((".index.json", ".safetensors")) or ".index." in name:
            assert ours[name].read_bytes() == path.read_bytes(), name


@pytest.mark.parametrize("size", ["10KB", "5GB"])
@pytest.mark.parametrize("safe", [True, False])
def test_each_reads_the_other(model, tmp_path, size, safe):
    save_ours(model, tmp_path / "ours", max_shard_size=size, safe=safe)
    loaded, info = transformers.BertForMaskedLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    model.save_pretrained(tmp_path / "theirs", max_shard_size=size, safe_serialization=safe)
    other = transformers.BertForMaskedLM(model.config)
    other.tie_weights()
    with open_checkpoint(LocalRepo(tmp_path / "theirs")) as checkpoint:
        plan = make_load_plan(checkpoint.infos, module_targets(other), tied=tied_groups(other))
        report = load_into(other, checkpoint, plan, strictness=Strictness("error", "error", "error"))
    assert report.missing_keys == report.unexpected_keys == report.tied_conflicts == []
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert other.cls.predictions.decoder.weight is other.bert.embeddings.word_embeddings.weight
    assert verify(tmp_path / "theirs").ok


def test_base_and_head_both_ways(model, tmp_path):
    save_ours(model, tmp_path / "head")
    base = transformers.BertModel(model.config, add_pooling_layer=False)
    with open_checkpoint(LocalRepo(tmp_path / "head")) as checkpoint:
        plan = make_load_plan(checkpoint.infos, module_targets(base), base_model_prefix="bert")
        report = load_into(base, checkpoint, plan)
    assert report.missing_keys == []
    assert all(key.startswith("cls.") for key in report.unexpected_keys)
    assert torch.equal(base.encoder.layer[1].output.dense.weight, model.bert.encoder.layer[1].output.dense.weight)
    save_checkpoint(base.state_dict(), tmp_path / "base")
    head = transformers.BertForMaskedLM(model.config)
    head.tie_weights()
    with open_checkpoint(LocalRepo(tmp_path / "base")) as checkpoint:
        plan = make_load_plan(checkpoint.infos, module_targets(head), base_model_prefix="bert", tied=tied_groups(head))
        report = load_into(head, checkpoint, plan)
    assert report.unexpected_keys == []
    assert all(key.startswith("cls.") for key in report.missing_keys)
    assert torch.equal(head.bert.embeddings.word_embeddings.weight, model.bert.embeddings.word_embeddings.weight)


@pytest.mark.slow
def test_the_newest_transformers_reads_ours(model, tmp_path):
    python = Path(__file__).parents[2] / ".peers" / "transformers-5" / "bin" / "python"
    assert python.exists(), "no transformers 5 in .peers: run make peers"
    save_ours(model, tmp_path / "ours", max_shard_size="10KB")
    code = (
        "import sys, json, torch, transformers\n"
        "model = transformers.BertForMaskedLM.from_pretrained(sys.argv[1])\n"
        "model.save_pretrained(sys.argv[2])\n"
        "print(json.dumps({n: float(p.detach().double().abs().sum()) for n, p in model.named_parameters()}))\n"
    )
    done = subprocess.run(
        [python, "-c", code, tmp_path / "ours", tmp_path / "theirs"], capture_output=True, text=True, check=True
    )
    sums = json.loads(done.stdout.splitlines()[-1])
    assert sums == {name: float(value.detach().double().abs().sum()) for name, value in model.named_parameters()}
    with open_checkpoint(LocalRepo(tmp_path / "theirs")) as checkpoint:
        assert torch.equal(
            checkpoint.read("bert.embeddings.word_embeddings.weight"), model.bert.embeddings.word_embeddings.weight
        )


if sys.platform == "win32":
    pytest.skip("upstream's temporary files stay open there", allow_module_level=True)
