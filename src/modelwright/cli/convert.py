"""`modelwright convert`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelwright.cli.console import print_json
from modelwright.cli.plan import full_dtype
from modelwright.core.errors import InputError

if TYPE_CHECKING:
    from modelwright.checkpoint.names import Rename


def convert(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="Folder or hub name of a model.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; may be that of CKPT.")],
    dtype: Annotated[str | None, typer.Option(help="bf16, fp16 or fp32 for floating-point tensors.")] = None,
    max_shard_size: Annotated[str, typer.Option(help="The most in one file.")] = "5GB",
    rename: Annotated[list[str] | None, typer.Option(help="PATTERN=REPLACEMENT for names; may be repeated.")] = None,
    variant: Annotated[str | None, typer.Option(help="Variant of CKPT, such as fp16, to read and to write.")] = None,
    distributed: Annotated[bool, typer.Option("--distributed", help="Write a distributed checkpoint.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a checkpoint as safetensors: from .bin or distributed files, other shards, another dtype, other names.

    The new checkpoint appears whole or not at all.
    """
    from modelwright.checkpoint.convert import convert_checkpoint
    from modelwright.checkpoint.open import open_checkpoint
    from modelwright.hub.open import open_repo
    from modelwright.pretrained.dtypes import wanted_dtypes

    wanted: Any = wanted_dtypes("--dtype", full_dtype(dtype), None)[""]
    if wanted == "auto":
        raise InputError("--dtype: expected a floating-point dtype, got 'auto'")
    repo = open_repo(checkpoint)
    with open_checkpoint(repo, variant=variant) as opened:
        report = convert_checkpoint(
            opened,
            repo,
            out,
            dtype=wanted,
            max_shard_size=max_shard_size,
            renames=[_rule(text) for text in rename or ()],
            variant=variant,
            distributed=distributed,
        )
    _copy_others(repo, out)
    written = sorted(path.name for path in out.iterdir()) if report is None else list(report.files)
    if json:
        print_json({"folder": str(out), "files": written, "removed": list(report.removed) if report else []})
    else:
        print(f"{out}: {', '.join(written)}")


def _rule(text: str) -> "Rename":
    from modelwright.checkpoint.names import Rename

    pattern, equals, replacement = text.partition("=")
    if not equals or not pattern:
        raise InputError(f"--rename: expected PATTERN=REPLACEMENT, got {text!r}")
    return Rename(pattern, replacement)


def _copy_others(repo: Any, out: Path) -> None:
    """Copy what is no text and no weights, such as a SentencePiece model, if it is not there."""
    from modelwright.checkpoint.save_together import save_together

    def copier(name: str) -> Any:
        return lambda path: path.write_bytes(repo.path(name).read_bytes())

    missing = [name for name in repo.files() if name.endswith((".model", ".spm")) and not (out / name).exists()]
    if missing:
        save_together(out, {name: copier(name) for name in missing})
