"""`modelwright verify`."""

from pathlib import Path
from typing import Annotated

import typer

from modelwright.cli.console import print_json


def verify(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="Folder of a saved model.")],
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Take leftovers, foreign changes and links that leave the folder for errors."),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check that a checkpoint is whole and sound. Exit code 0: sound, 1: not sound.

    Headers, index and sizes always; the content of each file where its hash is known.
    """
    from modelwright.checkpoint.verify import verify as verify_folder

    report = verify_folder(checkpoint, strict=strict)
    if json:
        print_json(report.to_dict())
    else:
        print(report)
    if not report.ok:
        raise typer.Exit(1)
