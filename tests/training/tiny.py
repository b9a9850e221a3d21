"""A tiny causal language model with the interface that the loop needs; runs as a script for the kill test."""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from modelwright.training.data import TextBytes
from modelwright.training.loop import train
from modelwright.training.settings import TrainingSettings


class TinyConfig:
    def __init__(self, *, hidden_size: int = 16, vocab_size: int = 258, max_position_embeddings: int = 64) -> None:
        self.hidden_size, self.vocab_size = hidden_size, vocab_size
        self.max_position_embeddings = max_position_embeddings

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


class TinyModel(nn.Module):
    """Predicts the next byte from an embedding and a causal mean, with dropout so that the random streams matter."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.mix = nn.Linear(2 * config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor | None = None) -> SimpleNamespace:
        embedded = self.embedding(input_ids)
        counts = torch.arange(1, input_ids.shape[1] + 1, device=input_ids.device)[:, None]
        past = embedded.cumsum(1) / counts
        hidden = self.norm(self.dropout(F.gelu(self.mix(torch.cat([embedded, past], -1)))))
        logits = self.head(hidden)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        return SimpleNamespace(loss=loss, logits=logits)

    def save_pretrained(self, folder: Any, *, max_shard_size: int | str = "5GB") -> None:
        torch.save(self.state_dict(), Path(folder) / "weights.pt")
        (Path(folder) / "config.json").write_text(json.dumps(self.config.to_dict()))

    @classmethod
    def from_pretrained(cls, folder: Any) -> "TinyModel":
        model = cls(TinyConfig(**json.loads((Path(folder) / "config.json").read_text())))
        model.load_state_dict(torch.load(Path(folder) / "weights.pt"))
        return model


class TinyTokenizer:
    byte_offset = 2

    def save_pretrained(self, folder: Any) -> None:
        (Path(folder) / "tokenizer_config.json").write_text("{}")


def make_model(seed: int = 0, **config: int) -> TinyModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyModel(TinyConfig(**config))


if __name__ == "__main__":  # TEXT OUT SETTINGS_JSON DROPOUT: trains slowly enough to be killed at any point
    text, out, settings, dropout = sys.argv[1:]
    torch.set_num_threads(1)
    model = make_model()
    model.dropout.p = float(dropout)
    train(
        model,
        TextBytes([text]),
        TrainingSettings(**json.loads(settings)),
        tokenizer=TinyTokenizer(),
        out=out,
        resume=True,
        observe=lambda record: time.sleep(0.005),
    )
