"""Pairs, their examples and their measures; the loop itself is tested in test_loop.py."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modelwright import BertConfig, BertLMHeadModel, BertTokenizerFast, EncoderDecoderConfig, EncoderDecoderModel
from modelwright.core.errors import InputError, RepoError
from modelwright.training.loop import train_task
from modelwright.training.metrics import read_metrics
from modelwright.training.pairs import PairsFile
from modelwright.training.settings import TrainingSettings
from modelwright.training.summaries import SummaryOptions, SummaryTask, rouge

pytest.importorskip("rouge_score")

WORDS = ["red", "blue", "green", "round", "square", "small", "ball", "box", "sees", "takes"]
BERT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
}
OPTIONS = SummaryOptions(source_tokens=8, target_tokens=4, eval_pairs=3)


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    """Twenty pairs; a target is the first two words of its source."""
    path = tmp_path / "pairs.jsonl"
    texts = [[WORDS[(3 * row + column) % 10] for column in range(4)] for row in range(20)]
    path.write_text("\n".join(json.dumps({"source": " ".join(t), "target": " ".join(t[:2])}) for t in texts) + "\n\n")
    return path


@pytest.fixture
def tokenizer(tmp_path: Path) -> BertTokenizerFast:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    return BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt"))


@pytest.fixture
def task(pairs_file: Path, tokenizer: BertTokenizerFast) -> SummaryTask:
    return SummaryTask(PairsFile(pairs_file, held_out=0.2), tokenizer, seed=3, batch=4, options=OPTIONS)


def make_model(vocab_size: int = 15) -> Any:
    config = EncoderDecoderConfig.from_encoder_decoder_configs(
        BertConfig(vocab_size=vocab_size, **BERT), BertConfig(vocab_size=vocab_size, **BERT), decoder_start_token_id=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return EncoderDecoderModel(config)


def test_the_last_pairs_are_held_out(pairs_file: Path) -> None:
    pairs = PairsFile(pairs_file, held_out=0.2)
    assert (len(pairs.train), len(pairs.held_out)) == (16, 4)
    assert pairs.train[0].target == "red blue"
    assert pairs.identity()["pairs"] == 20
    assert len(PairsFile(pairs_file, held_out=0.001).held_out) == 1


@pytest.mark.parametrize(
    "line", ["{", "[1, 2]", '{"source": "a"}', '{"source": "a", "target": 3}', '{"source": "a", "target": " "}']
)
def test_a_line_that_is_no_pair_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"source": "a", "target": "b"}\n' + line + "\n")
    with pytest.raises(InputError, match=r"pairs.jsonl, line 2: expected \{\"source\": text, \"target\": text\}"):
        PairsFile(path, held_out=0.1)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RepoError, match=r"there is no such file \(--pairs\)"):
        PairsFile(tmp_path / "none", held_out=0.1)
    (tmp_path / "one").write_text('{"source": "a", "target": "b"}')
    with pytest.raises(InputError, match="at least two pairs"):
        PairsFile(tmp_path / "one", held_out=0.1)
    (tmp_path / "latin").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="expected a file in UTF-8"):
        PairsFile(tmp_path / "latin", held_out=0.1)


def test_examples_end_with_the_separator_and_follow_from_step_and_row(task: SummaryTask) -> None:
    batch = task.batch(5, range(4))
    assert (batch["labels"].ne(-100).sum(1) == 3).all()
    assert (batch["labels"][:, 2] == 3).all()
    assert torch.equal(batch["labels"][:, :2], batch["input_ids"][:, 1:3])
    later = task.batch(5, range(2, 4))
    assert torch.equal(later["input_ids"], batch["input_ids"][2:])
    assert not torch.equal(task.batch(6, range(4))["input_ids"], batch["input_ids"])
    assert task.tokens(batch) == 4 * 6 + 4 * 3


def test_long_texts_are_cut(pairs_file: Path, tokenizer: BertTokenizerFast) -> None:
    options = SummaryOptions(source_tokens=4, target_tokens=2)
    task = SummaryTask(PairsFile(pairs_file, held_out=0.2), tokenizer, seed=0, batch=1, options=options)
    batch = task.batch(0, range(1))
    assert batch["input_ids"].shape == (1, 4)
    assert batch["labels"].tolist()[0][1:] == [3]


def test_what_does_not_fit_is_refused(task: SummaryTask) -> None:
    with pytest.raises(InputError, match=r"SummaryOptions.beams \(--beams\): expected a whole number of at least 1"):
        SummaryOptions(beams=0)
    with pytest.raises(InputError, match=r"knows 9 tokens and the tokenizer has 15: call model.resize_token_embed"):
        task.check_model(make_model(9))
    decoder = BertLMHeadModel(BertConfig(vocab_size=15, is_decoder=True, **BERT))
    with pytest.raises(InputError, match="BertLMHeadModel: summaries need a model with encoder and decoder"):
        task.check_model(decoder)


@pytest.mark.parametrize(("name", "part"), [("source_tokens", "encoder"), ("target_tokens", "decoder")])
def test_texts_longer_than_the_positions_are_refused_at_the_start(
    pairs_file: Path, tokenizer: BertTokenizerFast, tmp_path: Path, name: str, part: str
) -> None:
    model, pairs = make_model(), PairsFile(pairs_file, held_out=0.2)
    fits, too_long = (SummaryOptions(**{"source_tokens": 16, "target_tokens": 16, name: size}) for size in (16, 17))
    SummaryTask(pairs, tokenizer, seed=0, batch=4, options=fits).check_model(model)
    task = SummaryTask(pairs, tokenizer, seed=0, batch=4, options=too_long)
    said = rf"--{name.replace('_', '-')}\): expected at most 16, the positions of the model's {part}, got 17"
    with pytest.raises(InputError, match=said):
        train_task(model, task, TrainingSettings(steps=1, warmup=0), tokenizer=tokenizer, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_fails_in_the_last_measurement_loses_no_training(
    task: SummaryTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainingSettings(steps=3, warmup=0, batch=4, device="cpu")

    def run(folder: str, *, resume: bool = False) -> Any:
        return train_task(make_model(), task, settings, tokenizer=task.tokenizer, out=tmp_path / folder, resume=resume)

    expected = run("whole")
    with monkeypatch.context() as patch:
        patch.setattr(SummaryTask, "summaries", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run("failed")
    assert run("failed", resume=True).scores == expected.scores
    for folder in ("whole", "failed"):
        measured = [
            record for record in read_metrics(tmp_path / folder / "metrics.jsonl") if record["kind"] == "held_out"
        ]
        assert [record["step"] for record in measured] == [0, 3]
        assert measured[-1]["rougeL"] == expected.scores["rougeL"]
    run("failed", resume=True)
    again = [record["step"] for record in read_metrics(tmp_path / "failed" / "metrics.jsonl")]
    assert again == [0, 0, 1, 2, 3, 3]  # what is over is not recorded twice


def test_the_loss_counts_each_target_token_once(task: SummaryTask) -> None:
    model = make_model()
    scores = task.evaluate(model, torch.device("cpu"), last=True)
    assert list(scores) == ["loss", "rouge1", "rouge2", "rougeL"]
    assert model.training
    model.eval()
    # Three pairs in one batch, or each alone.
    task.rows = 1
    again = task.evaluate(model, torch.device("cpu"), last=False)
    assert again == {"loss": pytest.approx(scores["loss"], abs=1e-6)}


def test_rouge() -> None:
    scores = rouge(["the red balls", "nothing"], ["the red ball", "else"])
    assert scores == {"rouge1": 0.5, "rouge2": 0.5, "rougeL": 0.5}


def test_a_stopped_training_goes_on_as_if_it_had_not(task: SummaryTask, tmp_path: Path) -> None:
    settings = TrainingSettings(steps=12, warmup=2, batch=4, lr=0.01, eval_every=6, save_every=6, device="cpu")

    def run(folder: str, *, stop: bool = False, resume: bool = False) -> Any:
        def observe(record: Any) -> None:
            if stop and record["kind"] == "train" and record["step"] == 8:
                raise KeyboardInterrupt

        model = make_model()
        options = {"tokenizer": task.tokenizer, "out": tmp_path / folder, "resume": resume, "observe": observe}
        return train_task(model, task, settings, **options), model

    whole, expected = run("whole")
    assert whole.scores["loss"] < 2.5
    with pytest.raises(KeyboardInterrupt):
        run("stopped", stop=True)
    resumed, model = run("stopped", resume=True)
    assert resumed.scores == whole.scores
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), expected.parameters(), strict=True))
    saved = EncoderDecoderModel.from_pretrained(tmp_path / "stopped")
    assert saved.num_parameters() == model.num_parameters()
