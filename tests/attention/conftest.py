"""Small configs and modules that the attention room's tests share."""

from types import SimpleNamespace

import pytest
import torch

from modelwright.core import logging


@pytest.fixture
def said(caplog):
    """A function that returns the messages logged so far; "once" messages can be said again."""
    logging.forget_once()
    return lambda: [record.getMessage() for record in caplog.records if record.name.startswith("modelwright")]


@pytest.fixture
def config():
    """A function that makes a config of the given fields, for sdpa unless told otherwise."""

    def make(**fields):
        return SimpleNamespace(**{"_attn_implementation": "sdpa", "num_hidden_layers": 2, **fields})

    return make


@pytest.fixture
def module():
    """What a kernel sees of a causal attention layer in evaluation."""
    return SimpleNamespace(is_causal=True, training=False)


@pytest.fixture
def embeds():
    """A function that makes embeddings [batch, tokens, 4]."""
    return lambda batch, tokens: torch.zeros(batch, tokens, 4)
