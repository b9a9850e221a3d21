"""`modelwright diff`."""

from typing import Annotated

import typer

from modelwright.cli.console import print_json


def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="Folder or hub name of a model.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Folder or hub name of another.")],
    values: Annotated[bool, typer.Option("--values", help="Compare the values too.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare two checkpoints. Exit code 0: nothing differs, 1: something does.

    Names, shapes and dtypes from the headers; the values of all tensors with --values.
    """
    from modelwright.checkpoint.compare import compare_checkpoints
    from modelwright.checkpoint.open import open_checkpoint
    from modelwright.hub.open import open_repo

    with open_checkpoint(open_repo(first)) as left, open_checkpoint(open_repo(second)) as right:
        found = compare_checkpoints(left, right, values=values)
    if json:
        print_json(found.to_dict())
    else:
        print(found)
    if not found.equal:
        raise typer.Exit(1)
