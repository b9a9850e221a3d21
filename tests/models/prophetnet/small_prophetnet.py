"""A small ProphetNet with weights large enough to matter, and texts for it."""

import torch

from modelwright.models.prophetnet import modeling_prophetnet as prophetnet
from modelwright.models.prophetnet.configuration_prophetnet import ProphetNetConfig

SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 20,
    "num_encoder_layers": 2,
    "num_decoder_layers": 3,
    "num_encoder_attention_heads": 4,
    "num_decoder_attention_heads": 4,
    "max_position_embeddings": 24,
    "num_buckets": 8,
    "relative_max_distance": 12,
    "ngram": 3,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
}
RANDOM = torch.Generator().manual_seed(0)
IDS = torch.randint(3, 40, (3, 8), generator=RANDOM)
TARGET = torch.randint(3, 40, (3, 6), generator=RANDOM)
MASK = torch.tensor([[1] * 5 + [0] * 3, [1] * 8, [1] * 2 + [0] * 6])


def make(name="ProphetNetForConditionalGeneration", **config):
    torch.manual_seed(1)
    model = getattr(prophetnet, name)(ProphetNetConfig(**{**SMALL, **config})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.4)
    return model


def both(output):
    """The logits of all streams, (B, G, T, V)."""
    return torch.cat([output.logits[:, None], output.logits_ngram], dim=1)
