"""`modelwright train --task summarize`: what it writes and prints, how it resumes, what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modelwright import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    ProphetNetConfig,
    ProphetNetForCausalLM,
    ProphetNetForConditionalGeneration,
)

pytest.importorskip("rouge_score")
Run = Callable[..., Any]
SMALL = (
    "--steps",
    "6",
    "--batch",
    "4",
    "--hidden",
    "16",
    "--heads",
    "2",
    "--vocab-size",
    "40",
    "--source-tokens",
    "12",
)


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    words = ["red", "blue", "green", "ball", "box", "sees"]
    texts = [[words[(2 * row + column) % 6] for column in range(5)] for row in range(30)]
    path.write_text("\n".join(json.dumps({"source": " ".join(t), "target": t[0]}) for t in texts))
    return path


@pytest.fixture(scope="module")
def trained(run: Run, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("summaries") / "model"
    result = run("train", "--task", "summarize", "--pairs", pairs_file, "--out", out, *SMALL, "--json")
    assert result.exit_code == 0, result.output
    printed: dict[str, Any] = json.loads(result.stdout)
    return printed


def test_writes_a_model_that_summarizes(trained: dict[str, Any]) -> None:
    folder = Path(trained["folder"])
    assert set(trained["scores"]) == {"loss", "rouge1", "rouge2", "rougeL"}
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = model.generate(**tokenizer("red blue", return_tensors="pt", return_token_type_ids=False), max_new_tokens=4)
    assert ids[0, 0] == tokenizer.cls_token_id
    assert model.config.eos_token_id == tokenizer.sep_token_id
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert records[0]["train_pairs"] == 28
    assert records[-1]["rouge1"] == trained["scores"]["rouge1"]


def test_goes_on_without_being_told_the_task_again(run: Run, trained: dict[str, Any]) -> None:
    result = run("train", "--resume", "--out", trained["folder"], "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["scores"] == trained["scores"]


def test_begins_with_a_folder_and_prints_a_table(
    run: Run, trained: dict[str, Any], pairs_file: Path, tmp_path: Path
) -> None:
    options = ("--task", "summarize", "--pairs", pairs_file, "--out", tmp_path / "m", "--from", trained["folder"])
    result = run("train", *options, "--steps", "2", "--warmup", "0", "--source-tokens", "12", "--target-tokens", "4")
    assert result.exit_code == 0, result.output
    for expected in ("held-out pairs after 2 steps", "loss, nats per target token", "rougeL, F1"):
        assert expected in result.stdout
    assert "nats/token" in result.stderr


def test_generate_takes_the_prompt_as_the_source(run: Run, trained: dict[str, Any]) -> None:
    options = ("generate", trained["folder"], "--prompt", "red blue", "--max-new-tokens", "5", "--temperature", "0")
    printed = json.loads(run(*options, "--json").stdout)
    model, tokenizer = (auto.from_pretrained(trained["folder"]) for auto in (AutoModelForSeq2SeqLM, AutoTokenizer))
    source = tokenizer("red blue", return_tensors="pt", return_token_type_ids=False)
    ids = model.generate(**source, max_new_tokens=5, do_sample=False)[0]
    assert printed["continuation"] == tokenizer.decode(ids, skip_special_tokens=True)
    assert printed["new_tokens"] == len(ids) - 1
    assert run(*options).stdout.split() == printed["continuation"].split()  # the source is not repeated
    refused = run("generate", trained["folder"], "--prompt", "red")
    assert refused.exit_code == 2
    limit = model.config.decoder.max_position_embeddings
    assert (
        f"--max-new-tokens: expected at most {limit}, the positions of the model's decoder, got 200" in refused.stderr
    )


@pytest.mark.parametrize("alone", [False, True])
def test_generate_loads_a_prophetnet_as_what_it_is(
    run: Run, trained: dict[str, Any], tmp_path: Path, alone: bool
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(trained["folder"])
    torch.manual_seed(0)
    model = (ProphetNetForCausalLM if alone else ProphetNetForConditionalGeneration)(
        ProphetNetConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            num_encoder_layers=1,
            num_decoder_layers=1,
            num_encoder_attention_heads=2,
            num_decoder_attention_heads=2,
            max_position_embeddings=32,
            init_std=0.3,
        )
    ).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    options = ("--prompt", "red blue", "--max-new-tokens", "5", "--temperature", "0", "--json")
    printed = json.loads(run("generate", tmp_path, *options).stdout)
    source = tokenizer("red blue", return_tensors="pt", return_token_type_ids=False)
    ids = model.generate(**source, max_new_tokens=5, do_sample=False)[0]
    new = ids[source["input_ids"].shape[1] :] if alone else ids[1:]
    assert printed["continuation"] == tokenizer.decode(new, skip_special_tokens=True)
    assert printed["new_tokens"] == len(new)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--task", "summarize"), "no --pairs; start a training with --task summarize --pairs FILE"),
        (("--task", "summarize", "--pairs", "x", "--text", "y"), "--text has no meaning with --task summarize"),
        (("--task", "summarize", "--pairs", "x", "--window", "64"), "--window is about bytes"),
        (("--pairs", "x"), "--pairs has no meaning with --task bytes"),
        (("--task", "summarize", "--pairs", "x", "--from", "a", "--hidden", "8"), "--from describes the whole model"),
        (("--resume", "--task", "summarize", "--vocab-size", "8"), "leave out --vocab-size"),
    ],
)
def test_refuses(run: Run, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    result = run("train", "--out", tmp_path / "m", *options)
    assert result.exit_code == 2
    assert message in result.stderr
