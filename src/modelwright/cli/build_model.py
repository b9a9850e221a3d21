"""The model that `train` starts from: a Reformer of a few sizes, or whatever a config file describes."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.core.errors import ConfigError, InputError, ModelwrightError, RepoError

if TYPE_CHECKING:
    import torch

    from modelwright.config.configuration import PretrainedConfig

VOCAB_SIZE = 258  # of ByteTokenizer
ATTENTION_NAMES = ("local", "lsh")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReformerSizes:
    """The sizes of a Reformer that the command line sets; each default is a start for a few MB of text.

    layers: the attention of each layer. chunk, local_chunk: tokens in a chunk of LSH and of local attention; a token
    sees its own chunk and the one before. Small local chunks learn sooner what follows what: fewer tokens compete.
    dropout: of hidden states and of local attention.
    """

    hidden: int = 256
    layers: tuple[str, ...] = ("local", "lsh", "local", "lsh")
    heads: int = 4
    num_hashes: int = 1
    chunk: int = 64
    local_chunk: int = 8
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("hidden", "heads", "num_hashes", "chunk", "local_chunk"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"--{name.replace('_', '-')}: expected a whole number of at least 1, got {getattr(self, name)}."
                )
        if self.hidden % self.heads:
            raise InputError(f"--hidden: expected a multiple of the {self.heads} heads (--heads), got {self.hidden}.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"--dropout: expected a number from 0 to below 1, got {self.dropout}.")


def parse_layers(text: str) -> tuple[str, ...]:
    """Return the attention names of "local,lsh,..."; raises InputError for another name."""
    names = tuple(part.strip() for part in text.split(","))
    for name in names:
        if name not in ATTENTION_NAMES:
            raise InputError(f"--layers: expected a list such as local,lsh,local,lsh, got {name!r} in {text!r}.")
    return names


def reformer_config(sizes: ReformerSizes, *, window: int) -> dict[str, Any]:
    """Return the ReformerConfig values of `sizes` for windows of exactly `window` tokens.

    Weights start with a standard deviation of hidden ** -0.5, so that a layer of this width keeps the scale of what it
    gets. Raises InputError if the window is not a multiple of the chunks of the attention in `layers`.
    """
    chunks = {"local": ("--local-chunk", sizes.local_chunk), "lsh": ("--chunk", sizes.chunk)}
    for option, chunk in (chunks[name] for name in sorted(set(sizes.layers))):
        if window % chunk:
            raise InputError(f"--window: expected a multiple of the chunk of {chunk} tokens ({option}), got {window}.")
    columns = _columns(window, sizes.local_chunk)
    std = sizes.hidden**-0.5
    return {
        "model_type": "reformer",
        "is_decoder": True,
        "vocab_size": VOCAB_SIZE,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "hidden_size": sizes.hidden,
        "attention_head_size": sizes.hidden // sizes.heads,
        "num_attention_heads": sizes.heads,
        "feed_forward_size": 2 * sizes.hidden,
        "attn_layers": list(sizes.layers),
        "num_hashes": sizes.num_hashes,
        "local_attn_chunk_length": sizes.local_chunk,
        "lsh_attn_chunk_length": sizes.chunk,
        "hidden_dropout_prob": sizes.dropout,
        "local_attention_probs_dropout_prob": sizes.dropout,
        "max_position_embeddings": window,
        "axial_pos_embds": columns is not None,
        "axial_pos_shape": [window // (columns or 1), columns or 1],
        "axial_pos_embds_dim": [sizes.hidden // 4, sizes.hidden - sizes.hidden // 4],
        "initializer_range": std,
        "axial_norm_std": std,
    }


def _columns(window: int, local_chunk: int) -> int | None:
    """Return the columns of the axial position table, or None (plain positions) for a prime number of tokens.

    About two local chunks: then the tokens that a local query sees differ in their columns, and every column is met
    often, so that it is learnt soon.
    """
    divisors = [number for number in range(2, window) if window % number == 0]
    return min(divisors, key=lambda number: abs(math.log(number / (2 * local_chunk))), default=None)


# What each size sets, for a comparison with the config of a training that goes on.
SIZE_KEYS = {
    "hidden": ("hidden_size",),
    "layers": ("attn_layers",),
    "heads": ("num_attention_heads",),
    "num_hashes": ("num_hashes",),
    "chunk": ("lsh_attn_chunk_length",),
    "local_chunk": ("local_attn_chunk_length",),
    "dropout": ("hidden_dropout_prob", "local_attention_probs_dropout_prob"),
}


def config_from(values: Mapping[str, Any]) -> "PretrainedConfig":
    """Return the config object of `values`, whose `model_type` names its class."""
    from modelwright.models.auto.configuration_auto import AutoConfig

    config: PretrainedConfig = AutoConfig.for_model(**values)
    return config


def config_from_file(path: Path) -> "PretrainedConfig":
    """Return the config in the JSON file at `path`; raises RepoError, or ConfigError if it names no architecture."""
    from modelwright.models.auto.configuration_auto import AutoConfig

    if not os.path.lexists(path):
        raise RepoError(f"{path}: expected a JSON file (--config), but there is no such file.")
    with building_from(path):
        config: PretrainedConfig = AutoConfig.from_pretrained(path)
    return config


@contextlib.contextmanager
def building_from(source: str | Path) -> Iterator[None]:
    """Turn what a config or a model raises for values that it never expected into a ConfigError that names `source`."""
    try:
        yield
    except ModelwrightError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        said = str(error) or type(error).__name__
        raise ConfigError(f"{source}: the model cannot be built from this configuration: {said}") from error


def make_model(config: "PretrainedConfig", *, seed: int, source: str | Path) -> "torch.nn.Module":
    """Return a causal language model with the initial weights of `seed`; the caller keeps its random streams.

    source: what a message calls the place that the config is from. Raises ConfigError for one that makes no model.
    """
    from modelwright.models.auto.modeling_auto import AutoModelForCausalLM
    from modelwright.training.rng import seeded

    with seeded(seed), building_from(source):
        model: torch.nn.Module = AutoModelForCausalLM.from_config(config)
    return model
