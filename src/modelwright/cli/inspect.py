"""`modelwright inspect`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelwright.cli.console import human_bytes, print_json, result_console

if TYPE_CHECKING:
    from rich.console import Console


def inspect(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="Folder or hub name of a model.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what a checkpoint holds, from its headers alone."""
    found = describe(checkpoint)
    if json:
        print_json(found)
        return
    console = result_console()
    architectures = ", ".join(found["architectures"]) or "not named"
    console.print(f"[bold]{checkpoint}[/]: {found['model_type'] or 'unknown model type'} ({architectures})")
    console.print(f"{found['parameters']:,} parameters in {found['tensors']:,} tensors, {human_bytes(found['bytes'])}")
    for dtype, size in found["bytes_by_dtype"].items():
        console.print(f"  {dtype}: {human_bytes(size)}")
    console.print("[bold]files[/]")
    _print_aligned(console, [(name, human_bytes(size)) for name, size in found["files"].items()])
    console.print("[bold]keys, merged by layer[/]")
    shapes = [" x ".join(map(str, key["shape"])) or "scalar" for key in found["keys"]]
    _print_aligned(
        console, [(key["name"], key["dtype"], shape) for key, shape in zip(found["keys"], shapes, strict=True)]
    )


def _print_aligned(console: "Console", rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows in columns as wide as they need, whatever the terminal: a key that is cut off is of no use."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        console.print(f"  {line.rstrip()}", markup=False)


def describe(checkpoint: str) -> dict[str, Any]:
    """Return what the headers and the config say; no weight is read.

    Keys that differ in a layer number only, with the same dtype and shape, are one entry: `layers.{0..5}.weight`.
    Raises RepoError for a folder without weights, CheckpointError for damaged headers.
    """
    from modelwright.checkpoint.inspect import summarise
    from modelwright.checkpoint.open import open_checkpoint
    from modelwright.config.json_file import read_json
    from modelwright.hub.names import CONFIG_NAME
    from modelwright.hub.open import open_repo

    repo = open_repo(checkpoint)
    config = read_json(repo.path(CONFIG_NAME)) if repo.has(CONFIG_NAME) else {}
    with open_checkpoint(repo) as opened:
        summary = summarise(opened).to_dict()
    return {
        "checkpoint": checkpoint,
        "model_type": config.get("model_type"),
        "architectures": config.get("architectures") or [],
        **summary,
    }
