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
    source: Annotated[
        str | None, typer.Option("--from", help="fairseq-prophetnet: CKPT is a .pt file of the original ProphetNet.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a checkpoint as safetensors: from .bin or distributed files, other shards, another dtype, other names.

    The new checkpoint appears whole or not at all. A vocabulary (vocab.txt) beside a .pt file of fairseq becomes that
    of the tokenizer, and says which ids pad and end a text; without one they are those of the released checkpoints.
    """
    from modelwright.checkpoint.convert import convert_checkpoint
    from modelwright.checkpoint.open import open_checkpoint
    from modelwright.hub.open import open_repo
    from modelwright.pretrained.dtypes import wanted_dtypes

    wanted: Any = wanted_dtypes("--dtype", full_dtype(dtype), None)[""]
    if wanted == "auto":
        raise InputError("--dtype: expected a floating-point dtype, got 'auto'")
    if source is not None:
        given = {"--rename": rename, "--variant": variant, "--distributed": distributed}
        _convert_fairseq(source, Path(checkpoint), out, wanted, max_shard_size, json, given)
        return
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


def _convert_fairseq(
    source: str, path: Path, out: Path, dtype: Any, max_shard_size: str, json: bool, given: dict[str, Any]
) -> None:
    from modelwright.core.errors import check_choice
    from modelwright.models.prophetnet.fairseq import from_fairseq, read_fairseq
    from modelwright.models.prophetnet.tokenization_prophetnet import ProphetNetTokenizer

    check_choice("--from", source, ("fairseq-prophetnet",))
    for name, value in given.items():
        if value:
            raise InputError(f"{name} does not go with --from; convert the folder that this makes once more")
    vocabulary = path.parent / "vocab.txt"
    tokenizer, ids = None, dict[str, Any]()
    if vocabulary.is_file():
        tokenizer = ProphetNetTokenizer(str(vocabulary))
        end, pad = tokenizer.sep_token_id, tokenizer.pad_token_id
        ids = dict.fromkeys(("bos_token_id", "eos_token_id", "decoder_start_token_id"), end) | {"pad_token_id": pad}
    model = from_fairseq(*read_fairseq(path), **ids)
    if dtype is not None:
        model = model.to(dtype)
    model.save_pretrained(out, max_shard_size=max_shard_size)
    if tokenizer is not None:
        tokenizer.save_pretrained(out)
    written = sorted(each.name for each in out.iterdir() if not each.name.startswith("."))
    if json:
        print_json({"folder": str(out), "files": written, "removed": []})
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
