"""Write a checkpoint anew: as safetensors, in shards of another size, in another dtype, under other names."""

import json
import os
from collections.abc import Sequence

import torch

from modelwright.checkpoint.distributed import save_distributed
from modelwright.checkpoint.headers import Checkpoint, dtype_name
from modelwright.checkpoint.names import Rename
from modelwright.checkpoint.save import SaveReport, save_checkpoint
from modelwright.core.errors import InputError
from modelwright.core.progress import Progress
from modelwright.hub.names import CONFIG_NAME, MANIFEST_NAME, is_weights_file
from modelwright.hub.repo import Repo

_TEXTS = (".json", ".jinja", ".txt", ".md", ".py", ".model")
_LARGEST_TEXT = 64 << 20


def convert_checkpoint(
    checkpoint: Checkpoint,
    repo: Repo,
    folder: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    max_shard_size: int | str = "5GB",
    renames: Sequence[Rename] = (),
    variant: str | None = None,
    distributed: bool = False,
) -> SaveReport | None:
    """Write the open `checkpoint` of `repo` into `folder`, with one commit point, and return what was written.

    `dtype`: what floating-point tensors become; None keeps each one's own. `renames` are applied one after the other.
    `distributed` writes the pieces of a distributed checkpoint (and returns None). Tensors are read, cast and written
    file by file. The config (whose dtype is noted) and the tokenizer's files come along into another folder.
    Raises InputError if two names become one, and what saving raises.
    """
    source_of: dict[str, str] = {}
    for name in checkpoint.infos:
        new = name
        for rule in renames:
            new = rule.apply(new)
        if new in source_of:
            raise InputError(f"convert: {source_of[new]!r} and {name!r} would both be called {new!r}; change the rules")
        source_of[new] = name
    dtypes = {new: _dtype(checkpoint, name, dtype) for new, name in source_of.items()}
    texts = _texts(repo, dtype)
    with Progress("converting", len(source_of)) as progress:

        def read(name: str) -> torch.Tensor:
            progress.advance()
            return checkpoint.read(source_of[name], "cpu", dtypes[name])

        if distributed:
            save_distributed({name: read(name) for name in source_of}, folder, extra_files=texts)
            return None
        outlines = {
            new: torch.empty(checkpoint.infos[name].shape, dtype=dtypes[new], device="meta")
            for new, name in source_of.items()
        }
        return save_checkpoint(
            outlines, folder, max_shard_size=max_shard_size, variant=variant, extra_files=texts, read=read
        )


def _dtype(checkpoint: Checkpoint, name: str, dtype: torch.dtype | None) -> torch.dtype:
    stored = checkpoint.infos[name].dtype
    return dtype if dtype is not None and stored.is_floating_point and stored.itemsize > 1 else stored


def _texts(repo: Repo, dtype: torch.dtype | None) -> dict[str, str]:
    """Return the texts beside the weights that belong into the new folder."""
    texts: dict[str, str] = {}
    for name in repo.files():
        path = repo.path(name)
        if is_weights_file(name) or name == MANIFEST_NAME or name.startswith("."):
            continue
        if path.suffix in _TEXTS and path.stat().st_size <= _LARGEST_TEXT:
            try:
                texts[name] = path.read_bytes().decode("utf-8")
            except UnicodeDecodeError:
                continue  # a SentencePiece model; the command copies what is no text
    if CONFIG_NAME in texts and dtype is not None:
        config = json.loads(texts[CONFIG_NAME])
        for key in ("dtype", "torch_dtype"):
            if key in config:
                config[key] = dtype_name(dtype)
        texts[CONFIG_NAME] = json.dumps(config, indent=2, sort_keys=True) + "\n"
    return texts
