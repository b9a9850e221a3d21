"""ProphetNet checkpoints of the original code (microsoft/ProphetNet, on fairseq), made into models.

fairseq                                        here
{side}.embed_tokens, embed_positions           word_embeddings, position_embeddings
{side}.emb_layer_norm, ngram_input_embed       embeddings_layer_norm, ngram_embeddings
layers.{n}.ngram_self_attn, encoder_attn       self_attn, cross_attn
....{in_proj_weight, in_proj_bias}             query_proj, key_proj, value_proj, one behind the other
....relative_linear                            relative_pos_embeddings
layers.{n}.{fc1, fc2, final_layer_norm}        feed_forward.{intermediate, output}, feed_forward_layer_norm
"""

import argparse
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modelwright.core.errors import CheckpointError, InputError
from modelwright.core.logging import get_logger
from modelwright.models.prophetnet.configuration_prophetnet import ProphetNetConfig
from modelwright.models.prophetnet.modeling_prophetnet import ProphetNetForConditionalGeneration

logger = get_logger(__name__)

_LONG = {"q": "query", "k": "key", "v": "value"}
_NAMES: tuple[tuple[str, Any], ...] = (
    (r"\.embed_tokens\.", ".word_embeddings."),
    (r"\.embed_positions\.", ".position_embeddings."),
    (r"\.emb_layer_norm\.", ".embeddings_layer_norm."),
    (r"\.ngram_input_embed\.", ".ngram_embeddings."),
    (r"\.ngram_self_attn(?=[._])", ".self_attn"),
    (r"\.encoder_attn(?=[._])", ".cross_attn"),
    (r"\.relative_linear\.", ".relative_pos_embeddings."),
    (r"\.([qkv])_proj\.", lambda found: f".{_LONG[found[1]]}_proj."),
    (r"\.fc1\.", ".feed_forward.intermediate."),
    (r"\.fc2\.", ".feed_forward.output."),
    (r"\.final_layer_norm\.", ".feed_forward_layer_norm."),
)  # fmt: skip
# What fairseq writes that is no weight, and the projection that is the word embeddings once more.
_IDLE = re.compile(r"(^|\.)(version|_float_tensor)$|^decoder\.(embed_out|output_projection\.weight)$")
# Our fields and the training arguments that say them.
_FIELDS = {
    "dropout": "dropout", "attention_dropout": "attention_dropout", "activation_dropout": "activation_dropout",
    "activation_function": "activation_fn", "num_buckets": "num_buckets",
    "relative_max_distance": "relative_max_distance", "num_encoder_attention_heads": "encoder_attention_heads",
    "num_decoder_attention_heads": "decoder_attention_heads",
}  # fmt: skip
# Of the vocabulary of the released checkpoints (BERT's, uncased): [PAD], and [SEP], which begins and ends a text.
_PAD, _SEP = 0, 102


def read_fairseq(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights and the training arguments of a fairseq checkpoint; no code in it is run.

    Raises CheckpointError if the file is no such checkpoint, or asks for anything but tensors and a Namespace.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, LookupError, TypeError, ValueError, pickle.UnpicklingError) as error:
        first = str(error).partition("\n")[0][:200]
        raise CheckpointError(
            f"{path}: not a fairseq checkpoint that can be read without running its code ({first}). Save its weights "
            'alone: torch.save({"model": checkpoint["model"], "args": checkpoint["args"]}, path)'
        ) from None
    weights = loaded.get("model") if isinstance(loaded, dict) else None
    if not isinstance(weights, Mapping) or not all(isinstance(each, Tensor) for each in weights.values()):
        raise CheckpointError(f'{path}: expected a fairseq checkpoint, a dictionary with the weights under "model"')
    arguments = loaded.get("args")
    return dict(weights), dict(arguments) if isinstance(arguments, Mapping) else vars(arguments or argparse.Namespace())


def from_fairseq(
    weights: Mapping[str, Tensor], arguments: Mapping[str, Any], **fields: Any
) -> ProphetNetForConditionalGeneration:
    """Return the model of a fairseq checkpoint's weights, in the dtype that they have.

    `arguments` are those of its training; `fields` of the config come before them. The table of positions has the rows
    that both parts have, so that every trained position stays.
    Raises CheckpointError for weights that are missing, of another shape, or nobody's.
    """
    renamed = _renamed(weights)
    config = _config_of(renamed, arguments, fields)
    for side in ("encoder", "decoder"):
        name = f"{side}.position_embeddings.weight"
        renamed[name] = renamed[name][: config.max_position_embeddings]
    words = renamed["encoder.word_embeddings.weight"]
    if not torch.equal(words, renamed["decoder.word_embeddings.weight"]):
        raise CheckpointError(
            "fairseq checkpoint: the word embeddings of encoder and decoder differ; ProphetNet has one table for both"
        )
    state = {f"prophetnet.{name}": value for name, value in renamed.items()}
    state |= {"prophetnet.word_embeddings.weight": words, "lm_head.weight": words}
    model = ProphetNetForConditionalGeneration(config, dtype=words.dtype)
    expected = model.state_dict()
    _check(state, {name: tuple(value.shape) for name, value in expected.items()})
    model.load_state_dict(state)
    return model.eval()


def _renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        if _IDLE.search(name):
            continue
        new = name
        for pattern, replacement in _NAMES:
            new = re.sub(pattern, replacement, new)
        joined = re.fullmatch(r"(.*\.)in_proj_?(weight|bias)", new)
        if joined is None:
            renamed[new] = value
            continue
        if len(value) % 3:
            raise CheckpointError(
                f"fairseq checkpoint: {name} has {len(value)} rows, which are not three times as many"
            )
        for part, rows in zip(_LONG.values(), value.chunk(3), strict=True):
            renamed[f"{joined[1]}{part}_proj.{joined[2]}"] = rows
    return renamed


def _config_of(renamed: Mapping[str, Tensor], arguments: Mapping[str, Any], fields: dict[str, Any]) -> ProphetNetConfig:
    """Return the config: sizes are those of the weights, the rest is what the arguments and `fields` say."""
    try:
        words = renamed["encoder.word_embeddings.weight"]
        rows = [len(renamed[f"{side}.position_embeddings.weight"]) for side in ("encoder", "decoder")]
        buckets_and_heads = len(renamed["decoder.layers.0.self_attn.relative_pos_embeddings.weight"])
        ffn = [len(renamed[f"{side}.layers.0.feed_forward.intermediate.weight"]) for side in ("encoder", "decoder")]
        ngram = len(renamed["decoder.ngram_embeddings.weight"])
    except KeyError as error:
        raise CheckpointError(f"fairseq checkpoint: {error} is missing; is this a ProphetNet?") from None
    found = {ours: arguments[theirs] for ours, theirs in _FIELDS.items() if arguments.get(theirs) is not None}
    found = {
        "vocab_size": words.shape[0],
        "hidden_size": words.shape[1],
        "encoder_ffn_dim": ffn[0],
        "decoder_ffn_dim": ffn[1],
        "num_encoder_layers": _layers(renamed, "encoder"),
        "num_decoder_layers": _layers(renamed, "decoder"),
        "max_position_embeddings": min(rows),
        "ngram": ngram,
        "pad_token_id": _PAD,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "decoder_start_token_id"), _SEP),
        **found,
        **fields,
    }
    buckets = found.setdefault("num_buckets", 32)
    if buckets_and_heads % buckets:
        raise InputError(f"fairseq checkpoint: {buckets_and_heads} relative positions are not {buckets} of each head")
    for name in ("num_encoder_attention_heads", "num_decoder_attention_heads"):
        if name not in found:
            found[name] = buckets_and_heads // buckets
            logger.warning(f"fairseq checkpoint without arguments: took {found[name]} as {name}")
    return ProphetNetConfig(**found)


def _layers(renamed: Mapping[str, Tensor], side: str) -> int:
    numbers = (re.match(rf"{side}\.layers\.(\d+)\.", name) for name in renamed)
    return 1 + max(int(found[1]) for found in numbers if found)


def _check(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    missing, unknown = sorted(shapes.keys() - state.keys()), sorted(state.keys() - shapes.keys())
    wrong = [
        f"{name} is {tuple(state[name].shape)} and not {shape}"
        for name, shape in sorted(shapes.items())
        if name in state and tuple(state[name].shape) != shape
    ]
    if missing or unknown or wrong:
        parts = (("missing", missing), ("not of a ProphetNet", unknown), ("of another shape", wrong))
        listed = "; ".join(f"{what}: {', '.join(names[:5])}" for what, names in parts if names)
        raise CheckpointError(f"fairseq checkpoint: its weights do not make a ProphetNet ({listed})")
