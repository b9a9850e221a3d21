"""A Reformer of a size for tests, its inputs and its gradients."""

import copy

import torch

from modelwright.models.reformer.configuration_reformer import ReformerConfig
from modelwright.models.reformer.modeling_reformer import ReformerModelWithLMHead

SMALL = {
    "attention_head_size": 8,
    "attn_layers": ["local", "lsh", "local", "lsh"],
    "axial_pos_embds_dim": [4, 12],
    "axial_pos_shape": [8, 8],
    "feed_forward_size": 32,
    "hidden_dropout_prob": 0.2,
    "hidden_size": 16,
    "initializer_range": 0.2,
    "is_decoder": True,
    "local_attention_probs_dropout_prob": 0.1,
    "local_attn_chunk_length": 8,
    "lsh_attention_probs_dropout_prob": 0.1,
    "lsh_attn_chunk_length": 8,
    "max_position_embeddings": 64,
    "num_attention_heads": 2,
    "num_buckets": 4,
    "num_hashes": 2,
    "vocab_size": 50,
}
QUIET = {
    "hidden_dropout_prob": 0.0,
    "local_attention_probs_dropout_prob": 0.0,
    "lsh_attention_probs_dropout_prob": 0.0,
    "hash_seed": 0,
}
# Weights large enough for attention to be far from uniform: a wrong mask, order or precision then shows.
LARGE = {**QUIET, "initializer_range": 0.4}


def build(cls=ReformerModelWithLMHead, **changes):
    torch.manual_seed(0)
    return cls(ReformerConfig(**copy.deepcopy({**SMALL, **changes})))


def ids(batch=2, length=64):
    return torch.randint(1, 50, (batch, length), generator=torch.Generator().manual_seed(1))


def gradients(model, tokens, seed=5, **arguments):
    torch.manual_seed(seed)
    model.zero_grad()
    loss = model(tokens, labels=tokens, **arguments).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same_gradients(left, right, tolerance=1e-5):
    for name, gradient in left.items():
        assert (gradient - right[name]).abs().max() <= tolerance * (gradient.abs().max() + 1e-8), name
