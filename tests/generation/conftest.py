from types import SimpleNamespace

import pytest
import torch

from modelwright.config.configuration import PretrainedConfig
from modelwright.generation.mixin import GenerationMixin, positions_of_mask
from modelwright.generation.streamers import BaseStreamer


class FakeModel(GenerationMixin):
    """A causal model of ten lines: logits are a fixed function of the tokens so far and of their positions."""

    training = True
    device = torch.device("cpu")

    def __init__(self, vocab_size=13, **config):
        self.config = PretrainedConfig(vocab_size=vocab_size, **config)
        self.table = torch.randn(vocab_size, vocab_size, generator=torch.Generator().manual_seed(0))
        self.calls = []

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **kwargs):
        return {"input_ids": input_ids, "attention_mask": attention_mask, **kwargs}

    def forward(self, input_ids, attention_mask=None, scale=1.0, return_dict=None):
        self.calls.append({"shape": tuple(input_ids.shape), "mask": attention_mask, "grad": torch.is_grad_enabled()})
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        weight = torch.cos(positions_of_mask(mask) * 1.7) * mask
        return SimpleNamespace(logits=scale * (self.table[input_ids] * weight[..., None]).cumsum(1) * 2)

    def __call__(self, **kwargs):
        return self.forward(**kwargs)


@pytest.fixture
def fake_model():
    return FakeModel


class Collect(BaseStreamer):
    """Keeps what a streamer gets."""

    def __init__(self):
        self.got, self.ended = [], 0

    def put(self, value):
        self.got.append(value.tolist())

    def end(self):
        self.ended += 1


@pytest.fixture
def collect():
    return Collect
