"""`modelwright prune`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from modelwright.cli.console import human_bytes, print_json, progress_console, result_console
from modelwright.core.errors import ConfigError, InputError

_REPEATS = 5
_DUMMY_TOKENS = 32


def prune(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="Folder or hub name of a model.")],
    out: Annotated[Path, typer.Option(help="Folder to save the pruned model in.")],
    heads: Annotated[list[str] | None, typer.Option(help="LAYER:HEAD,HEAD to prune; may be repeated.")] = None,
    keep: Annotated[float | None, typer.Option(help="Share of the heads to keep; needs --text.")] = None,
    text: Annotated[Path | None, typer.Option(help="Text to score heads and measure the loss on.")] = None,
    window: Annotated[int, typer.Option(help="Tokens of each piece of the text.")] = 128,
    windows: Annotated[int, typer.Option(help="The most pieces to use.")] = 32,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Take attention heads out of a saved model and report size, latency and loss before and after.

    With --keep the heads that matter least to the loss of a text go (Michel et al. 2019).
    """
    named = _parse(heads or [])
    _check(named, keep, text, window, windows)
    report = run(checkpoint, out, named, keep, text, window, windows)
    if json:
        print_json(report)
    else:
        _print(report)


def run(
    checkpoint: str,
    out: Path,
    named: dict[int, list[int]],
    keep: float | None,
    text: Path | None,
    window: int,
    windows: int,
) -> dict[str, Any]:
    """Load, choose, prune and save; return the report."""
    from modelwright.models.auto.modeling_auto import AutoModelForCausalLM
    from modelwright.training.head_scores import heads_to_prune, score_heads

    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    tokenizer, pieces = None, []
    if text is not None:
        tokenizer = _tokenizer(checkpoint, model)
        pieces = _pieces(tokenizer, text, window, windows)
    before = _measure(model, pieces)
    if keep is not None:
        progress_console().print(f"scoring heads on {len(pieces)} pieces of {text}")
        named = heads_to_prune(score_heads(model, pieces), keep, model.config.pruned_heads)
    model.prune_heads(named)
    after = _measure(model, pieces)
    model.save_pretrained(out)
    if tokenizer is not None:
        tokenizer.save_pretrained(out)
    return {
        "checkpoint": checkpoint,
        "folder": str(out),
        "pruned": {str(layer): each for layer, each in named.items()},
        "before": before,
        "after": after,
    }


def _parse(heads: list[str]) -> dict[int, list[int]]:
    parsed: dict[int, list[int]] = {}
    for item in heads:
        layer, colon, numbers = item.partition(":")
        try:
            chosen = [int(number) for number in numbers.split(",")]
            parsed.setdefault(int(layer), []).extend(chosen)
        except ValueError:
            raise InputError(f"--heads: expected LAYER:HEAD,HEAD such as 0:1,3, got {item!r}") from None
        assert colon
    return parsed


def _check(named: dict[int, list[int]], keep: float | None, text: Path | None, window: int, windows: int) -> None:
    if bool(named) == (keep is not None):
        raise InputError("prune: expected either --heads LAYER:HEAD,HEAD or --keep SHARE, got both or neither")
    if keep is not None and text is None:
        raise InputError("prune: --keep needs --text FILE, to find out which heads matter")
    if keep is not None and not 0 < keep <= 1:
        raise InputError(f"--keep: expected a share of the heads above 0 and at most 1, got {keep}")
    if text is not None and not text.is_file():
        raise InputError(f"--text: {text}: there is no such file")
    for name, value, least in (("--window", window, 2), ("--windows", windows, 1)):
        if value < least:
            raise InputError(f"{name}: expected a whole number of at least {least}, got {value}")


def _tokenizer(checkpoint: str, model: Any) -> Any:
    """Return the folder's tokenizer; bytes for a folder without one whose vocabulary is large enough for them."""
    from modelwright.hub.names import TOKENIZER_CONFIG_NAME
    from modelwright.hub.open import open_repo
    from modelwright.models.auto.tokenization_auto import AutoTokenizer
    from modelwright.tokenization.byte_tokenizer import ByteTokenizer

    if open_repo(checkpoint).has(TOKENIZER_CONFIG_NAME):
        return AutoTokenizer.from_pretrained(checkpoint)
    tokenizer = ByteTokenizer()
    if model.config.vocab_size < len(tokenizer):
        raise ConfigError(
            f"{checkpoint}: expected a saved tokenizer, found none, and the model's vocabulary of "
            f"{model.config.vocab_size} is too small for bytes ({len(tokenizer)})"
        )
    progress_console().print(f"{checkpoint} has no tokenizer: the text is read as bytes")
    return tokenizer


def _pieces(tokenizer: Any, text: Path, window: int, windows: int) -> list[Any]:
    import torch

    ids = tokenizer.encode(text.read_text(encoding="utf-8"), add_special_tokens=False)
    pieces = [torch.tensor([ids[start : start + window]]) for start in range(0, len(ids), window)][:windows]
    pieces = [piece for piece in pieces if piece.shape[1] > 1]
    if not pieces:
        raise InputError(f"--text: {text}: expected at least 2 tokens, found {len(ids)}")
    return pieces


def _measure(model: Any, pieces: list[Any]) -> dict[str, Any]:
    """Return parameters, bytes, the fastest of some forwards in seconds, and the loss in nats per token."""
    import time

    import torch

    from modelwright.training.head_scores import mean_loss

    ids = pieces[0] if pieces else torch.zeros(1, min(_DUMMY_TOKENS, model._position_limit() or _DUMMY_TOKENS)).long()
    seconds = []
    with torch.no_grad():
        for _ in range(_REPEATS + 1):
            start = time.perf_counter()
            model(ids)
            seconds.append(time.perf_counter() - start)
    return {
        "parameters": model.num_parameters(),
        "bytes": model.get_memory_footprint(),
        "seconds": min(seconds[1:]),
        "loss": mean_loss(model, pieces) if pieces else None,
    }


def _print(report: dict[str, Any]) -> None:
    console, before, after = result_console(), report["before"], report["after"]
    for layer, heads in report["pruned"].items():
        console.print(f"layer {layer}: heads {', '.join(map(str, heads))}")
    console.print(f"parameters  {before['parameters']:,} -> {after['parameters']:,}")
    console.print(f"memory      {human_bytes(before['bytes'])} -> {human_bytes(after['bytes'])}")
    console.print(f"forward     {before['seconds'] * 1e3:.2f} ms -> {after['seconds'] * 1e3:.2f} ms")
    if before["loss"] is not None:
        console.print(f"loss        {before['loss']:.4f} -> {after['loss']:.4f} nats per token")
    console.print(f"saved in {report['folder']}")
