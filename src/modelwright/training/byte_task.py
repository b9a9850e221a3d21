"""The task of a language model over bytes: the windows of a text, and bits per byte on its end."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from modelwright.core.errors import InputError
from modelwright.training.baselines import measure_baselines
from modelwright.training.data import TextBytes, held_out_windows, split_text, training_batch
from modelwright.training.evaluate import bits_per_byte, held_out_bits
from modelwright.training.settings import TrainingSettings
from modelwright.training.task import Figures


class ByteTask:
    """Each byte of `text` from those before it, in windows; the last `settings.held_out` of it is held out.

    tokenizer: a ByteTokenizer. Raises InputError if no window fits.
    """

    def __init__(self, text: TextBytes, settings: TrainingSettings, tokenizer: Any) -> None:
        self.text = text
        self.settings = settings
        self.split = split_text(len(text), held_out=settings.held_out, window=settings.window)
        self.byte_ids = byte_id_table(tokenizer)

    unit = "bits/byte"

    @property
    def paths(self) -> list[Path]:
        """The files of the text."""
        return self.text.paths

    def check_model(self, model: torch.nn.Module) -> None:
        """Raise InputError if the window or the ids of the bytes do not fit the model."""
        config: Any = model.config
        positions = getattr(config, "max_position_embeddings", None)
        if positions is not None and self.settings.window > positions:
            raise InputError(
                f"Training: expected a window of at most the model's {positions:,} positions "
                f"(max_position_embeddings), got --window {self.settings.window:,}."
            )
        if int(self.byte_ids.max()) >= config.vocab_size:
            raise InputError(
                f"Training: the bytes need {int(self.byte_ids.max()) + 1} token ids, but the model's vocab_size is "
                f"{config.vocab_size}: set it to {int(self.byte_ids.max()) + 1} or more."
            )

    def identity(self) -> dict[str, Any]:
        """Return the size and hash of the text."""
        return self.text.identity()

    def start_record(self) -> Mapping[str, Any]:
        """Return the bytes to train on and, in `baselines` too, what the held-out bytes cost without a model."""
        self.baselines = measure_baselines(self.text, self.split, limit=self.settings.eval_bytes)
        return {"train_bytes": self.split.train_end, "baselines": asdict(self.baselines)}

    def batch(self, step: int, rows: range) -> dict[str, torch.Tensor]:
        """Return `input_ids` and `labels` [len(rows), window], the same."""
        settings = self.settings
        windows = training_batch(
            self.text, self.split, window=settings.window, seed=settings.seed, step=step, rows=rows
        )
        input_ids = self.byte_ids[torch.from_numpy(windows).long()]
        return {"input_ids": input_ids, "labels": input_ids}

    def loss(self, model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the model's own loss."""
        loss: torch.Tensor = model(**batch).loss
        return loss

    def tokens(self, batch: Mapping[str, torch.Tensor]) -> int:
        """Return the number of bytes."""
        return batch["input_ids"].numel()

    def figures(self, loss: float) -> Figures:
        """Return the bits per byte."""
        return {"bits_per_byte": bits_per_byte(loss)}

    def evaluate(self, model: torch.nn.Module, device: torch.device, *, last: bool) -> Figures:  # noqa: ARG002
        """Return the bits per byte of the held-out bytes."""
        windows = held_out_windows(self.split, window=self.settings.window, limit=self.settings.eval_bytes)
        bits = held_out_bits(
            model, self.text, windows, byte_ids=self.byte_ids, batch=self.settings.batch, device=device
        )
        return {"bits_per_byte": bits}


def byte_id_table(tokenizer: Any) -> torch.Tensor:
    """Return the token id of each of the 256 bytes, [256]."""
    return torch.arange(256) + int(tokenizer.byte_offset)
