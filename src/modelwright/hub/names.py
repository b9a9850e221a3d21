"""The one home of file names: what the files of a model are called on disk and on the Hub."""

import re

from modelwright.core.errors import InputError

CONFIG_NAME = "config.json"
GENERATION_CONFIG_NAME = "generation_config.json"
# What `modelwright quantize` writes beside a checkpoint.
ONNX_NAME = "model.onnx"

SAFE_WEIGHTS_NAME = "model.safetensors"
SAFE_WEIGHTS_INDEX_NAME = "model.safetensors.index.json"
WEIGHTS_NAME = "pytorch_model.bin"
WEIGHTS_INDEX_NAME = "pytorch_model.bin.index.json"

ADAPTER_CONFIG_NAME = "adapter_config.json"
ADAPTER_SAFE_WEIGHTS_NAME = "adapter_model.safetensors"
ADAPTER_WEIGHTS_NAME = "adapter_model.bin"

TOKENIZER_NAME = "tokenizer.json"
TOKENIZER_CONFIG_NAME = "tokenizer_config.json"
SPECIAL_TOKENS_MAP_NAME = "special_tokens_map.json"
ADDED_TOKENS_NAME = "added_tokens.json"
CHAT_TEMPLATE_NAME = "chat_template.jinja"
CHAT_TEMPLATE_FOLDER = "additional_chat_templates"

MANIFEST_NAME = "modelwright.manifest.json"
JOURNAL_NAME = ".modelwright.journal.json"
STAGING_PREFIX = ".modelwright-tmp-"
LOCK_NAME = ".modelwright.lock"

_VARIANT = re.compile(r"[A-Za-z0-9_+-]+")


def add_variant(name: str, variant: str | None) -> str:
    """Return `name` with `variant` before its last extension: "model.fp16.safetensors".

    Raises InputError if the variant holds anything but letters, digits, "_", "+" and "-" (it becomes part of a path).
    """
    if variant is None:
        return name
    if not _VARIANT.fullmatch(variant):
        raise InputError(f"variant: expected letters, digits, '_', '+' or '-' (as in 'fp16'), got {variant!r}.")
    stem, dot, extension = name.rpartition(".")
    return f"{stem}.{variant}{dot}{extension}"


def shard_name(weights_name: str, index: int, count: int) -> str:
    """Return the name of shard `index` (from 0) of `count`: "model-00001-of-00002.safetensors"."""
    stem, dot, extension = weights_name.rpartition(".")
    return f"{stem}-{index + 1:05d}-of-{count:05d}{dot}{extension}"


def is_shard_of(name: str, weights_name: str) -> bool:
    """Tell whether `name` is a shard of exactly this `weights_name`, not of another variant or another stem."""
    stem, dot, extension = weights_name.rpartition(".")
    return re.fullmatch(re.escape(stem) + r"-\d{5}-of-\d{5}" + re.escape(dot + extension), name) is not None


def is_distributed_shard(name: str) -> bool:
    """Tell whether `name` is a file of a distributed checkpoint: what one process has written of the weights."""
    return re.fullmatch(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors", name) is not None


def is_weights_file(name: str) -> bool:
    """Tell whether a loader could take `name` for weights or an index."""
    return name.endswith((".safetensors", ".bin", ".index.json")) or (".index." in name and name.endswith(".json"))


def entry_names(variant: str | None) -> tuple[str, str, str, str]:
    """Return the four files that a checkpoint can start from, in the order in which a loader looks for them."""
    safe, safe_index, pickled, pickled_index = (
        add_variant(name, variant)
        for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
    )
    return safe, safe_index, pickled, pickled_index
