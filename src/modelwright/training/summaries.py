"""The task of an encoder-decoder that writes a target for each source: held-out loss and ROUGE.

Legend: B batch, S source tokens, T target tokens.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from modelwright.core.errors import InputError
from modelwright.core.optional import require
from modelwright.generation.protocol import encoder_of
from modelwright.nn.losses import IGNORED
from modelwright.training.collators import DataCollatorForSeq2Seq
from modelwright.training.data import window_start
from modelwright.training.pairs import Pair, PairsFile
from modelwright.training.rng import seeded
from modelwright.training.task import Figures

ROUGE = ("rouge1", "rouge2", "rougeL")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SummaryOptions:
    """How pairs become examples, and how they are measured.

    source_tokens, target_tokens: longer texts are cut there. eval_pairs: held-out pairs that are measured at most.
    beams: of the summaries that ROUGE is measured on, 1 being greedy. Raises InputError.
    """

    source_tokens: int = 256
    target_tokens: int = 64
    eval_pairs: int = 200
    beams: int = 1

    def __post_init__(self) -> None:
        for name, least in (("source_tokens", 2), ("target_tokens", 2), ("eval_pairs", 1), ("beams", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                option = f"--{name.replace('_', '-')}"
                raise InputError(
                    f"SummaryOptions.{name} ({option}): expected a whole number of at least {least}, got {value!r}."
                )


class SummaryTask:
    """The targets of `pairs`, each from its source; which pairs a step sees follows from `seed`, step and row.

    tokenizer: of both texts, with a padding token. A target ends with the tokenizer's end of text (or separator).
    """

    unit = "nats/token"

    def __init__(
        self, pairs: PairsFile, tokenizer: Any, *, seed: int, batch: int, options: SummaryOptions | None = None
    ) -> None:
        end = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id
        if end is None or tokenizer.pad_token_id is None:
            raise InputError(
                f"{type(tokenizer).__name__}: summaries need a token that ends a text (eos_token or sep_token) and a "
                "pad_token; add them with tokenizer.add_special_tokens()."
            )
        self.pairs, self.tokenizer, self.seed, self.rows = pairs, tokenizer, seed, batch
        self.options = options or SummaryOptions()
        self.end: int = end
        self._collate = DataCollatorForSeq2Seq(tokenizer)

    @property
    def paths(self) -> list[Path]:
        """The file of the pairs."""
        return [self.pairs.path]

    def check_model(self, model: torch.nn.Module) -> None:
        """Raise InputError for a model without an encoder, or with fewer tokens or positions than the texts may need.

        MissingPackageError is raised now if ROUGE cannot be measured in the end.
        """
        _scorer()
        config: Any = model.config
        if not config.is_encoder_decoder:
            raise InputError(
                f"{type(model).__name__}: summaries need a model with encoder and decoder, such as T5 or "
                "EncoderDecoderModel."
            )
        for part in (config, getattr(config, "encoder", config)):
            if part.vocab_size < len(self.tokenizer):
                raise InputError(
                    f"{type(model).__name__} knows {part.vocab_size} tokens and the tokenizer has "
                    f"{len(self.tokenizer)}: call model.resize_token_embeddings(len(tokenizer))."
                )
        # A target has as many inputs: the start token comes before them, and the last one is not fed.
        self._check_positions("source_tokens", "encoder", encoder_of(model))
        self._check_positions("target_tokens", "decoder", model)

    def _check_positions(self, name: str, part: str, model: Any) -> None:
        limit, wanted = model._position_limit(), getattr(self.options, name)
        if limit is not None and wanted > limit:
            raise InputError(
                f"SummaryOptions.{name} (--{name.replace('_', '-')}): expected at most {limit:,}, the positions of "
                f"the model's {part}, got {wanted:,}."
            )

    def identity(self) -> dict[str, Any]:
        """Return what tells the file from others, and how its texts are cut and measured."""
        return {**self.pairs.identity(), **dataclasses.asdict(self.options)}

    def start_record(self) -> Mapping[str, Any]:
        """Return the numbers of pairs."""
        return {"train_pairs": len(self.pairs.train), "held_out_pairs": len(self.pairs.held_out)}

    def batch(self, step: int, rows: range) -> dict[str, torch.Tensor]:
        """Return `input_ids`, `attention_mask` [B, S] and `labels` [B, T]."""
        train = self.pairs.train
        return self._encoded([train[window_start(self.seed, step, row, len(train))] for row in rows])

    def loss(self, model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the model's own loss."""
        loss: torch.Tensor = model(**batch).loss
        return loss

    def tokens(self, batch: Mapping[str, torch.Tensor]) -> int:
        """Return the number of tokens that are no padding, of both texts."""
        return int(batch["attention_mask"].sum() + (batch["labels"] != IGNORED).sum())

    def figures(self, loss: float) -> Figures:  # noqa: ARG002 (nats per token already)
        """Return nothing more."""
        return {}

    def evaluate(self, model: torch.nn.Module, device: torch.device, *, last: bool) -> Figures:
        """Return the held-out loss in nats per target token; the `last` time also ROUGE (F1, 0 to 1)."""
        measured = self.pairs.held_out[: self.options.eval_pairs]
        training = model.training
        model.eval()
        try:
            with seeded(0), torch.no_grad():
                scores = {"loss": self._loss(model, measured, device)}
                if last:
                    scores |= rouge(self.summaries(model, measured, device), [pair.target for pair in measured])
        finally:
            model.train(training)
        return scores

    def summaries(self, model: Any, pairs: Sequence[Pair], device: torch.device) -> list[str]:
        """Return what the model writes for the source of each pair."""
        written: list[str] = []
        for first in range(0, len(pairs), self.rows):
            batch = self._encoded(pairs[first : first + self.rows])
            ids = model.generate(
                batch["input_ids"].to(device),
                attention_mask=batch["attention_mask"].to(device),
                max_new_tokens=self.options.target_tokens,
                num_beams=self.options.beams,
                do_sample=False,
                eos_token_id=self.end,
                pad_token_id=self.tokenizer.pad_token_id,
            )
            written += self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return written

    def _loss(self, model: torch.nn.Module, pairs: Sequence[Pair], device: torch.device) -> float:
        nats, counted = 0.0, 0
        for first in range(0, len(pairs), self.rows):
            batch = self._encoded(pairs[first : first + self.rows])
            count = int((batch["labels"] != IGNORED).sum())
            nats += float(model(**{name: tensor.to(device) for name, tensor in batch.items()}).loss) * count
            counted += count
        return nats / counted

    def _encoded(self, pairs: Sequence[Pair]) -> dict[str, torch.Tensor]:
        options = self.options
        rows = []
        for pair in pairs:
            source = self.tokenizer(pair.source, truncation=True, max_length=options.source_tokens)
            target = self.tokenizer(pair.target, add_special_tokens=False, verbose=False)["input_ids"]
            rows.append(
                {
                    "input_ids": source["input_ids"],
                    "attention_mask": source["attention_mask"],
                    "labels": [*target[: options.target_tokens - 1], self.end],
                }
            )
        return self._collate(rows)


def rouge(written: Sequence[str], targets: Sequence[str]) -> Figures:
    """Return the mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L, words stemmed; Lin 2004.

    Raises MissingPackageError, which names the extra, without rouge-score.
    """
    scorer = _scorer()
    scores = [scorer.score(target, text) for text, target in zip(written, targets, strict=True)]
    return {name: sum(score[name].fmeasure for score in scores) / len(scores) for name in ROUGE}


def _scorer() -> Any:
    scorers = require("rouge_score.rouge_scorer", extra="eval", why="Measuring ROUGE")
    return scorers.RougeScorer(list(ROUGE), use_stemmer=True)
