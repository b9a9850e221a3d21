"""`modelwright migrate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelwright.cli.console import print_json, result_console

if TYPE_CHECKING:
    from rich.console import Console

    from modelwright.migration.changes import Changes


def migrate(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Python files, and folders that hold some.")],
    write: Annotated[
        bool, typer.Option("--write", help="Change the files; without it, only show what would be.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Move the imports of code written for transformers 4.x to modelwright.

    Exit code 0: all of them moved. 1: some stay on transformers. 2: a file cannot be parsed.
    """
    from modelwright.core.errors import ModelwrightError
    from modelwright.core.optional import require
    from modelwright.migration.files import find_files

    require("libcst", extra="migrate", why="modelwright migrate")
    console = result_console()
    reports: dict[str, Any] = {}
    code = 0
    for path in find_files(paths):
        try:
            changes = _migrated(path, write=write)
        except ModelwrightError as error:
            reports[str(path)] = {"error": str(error)}
            code = 2
            if not json:
                console.print(f"[bold red]{path}[/]: not changed")
                typer.echo(f"modelwright: {error}", err=True)
            continue
        reports[str(path)] = changes.to_dict()
        code = max(code, 1 if changes.kept else 0)
        if not json:
            _show(console, str(path), changes)
    totals = _totals(reports)
    if json:
        print_json({"written": write, **totals, "files": reports})
    else:
        console.print(_sentence(totals, write=write))
    if code:
        raise typer.Exit(code)


def _migrated(path: Path, *, write: bool) -> "Changes":
    """Rewrite a file in one step, if it is to be written; return what changed."""
    from modelwright.config.json_file import write_bytes
    from modelwright.migration.files import read_source
    from modelwright.migration.rewrite import rewrite

    source = read_source(path)
    changes = rewrite(source.text, str(path))
    if write and changes.changed:
        mode = path.stat().st_mode
        write_bytes(path, source.encoded(changes.after))
        path.chmod(mode)
    return changes


def _show(console: "Console", path: str, changes: "Changes") -> None:
    """Print the diff and the table of a file that has something to say."""
    from rich.syntax import Syntax
    from rich.table import Table

    notes = [("kept", note) for note in changes.kept] + [("by hand", note) for note in changes.by_hand]
    if not changes.changed and not notes:
        return
    console.print(f"[bold]{path}[/]")
    if changes.changed:
        console.print(Syntax(changes.diff(path).rstrip(), "diff", background_color="default"))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("moved", "", _counted(changes.moved))
    for kind, note in notes:
        table.add_row(kind, f"line {note.line}", f"{note.what}: {note.reason}")
    console.print(table, markup=False)


def _counted(moved: list[Any]) -> str:
    names = sorted({note.what for note in moved})
    return f"{len(names)}: {', '.join(names)}" if names else "nothing"


def _totals(reports: dict[str, Any]) -> dict[str, int]:
    def count(kind: str) -> int:
        return sum(len(report.get(kind, ())) for report in reports.values())

    return {
        "changed": sum(report.get("changed", False) for report in reports.values()),
        "failed": sum("error" in report for report in reports.values()),
        "moved": count("moved"),
        "kept": count("kept"),
        "by_hand": count("by_hand"),
    }


def _sentence(totals: dict[str, int], *, write: bool) -> str:
    verb = "changed" if write else "to change (--write changes them)"
    text = f"{totals['changed']} files {verb}; {totals['moved']} names moved, {totals['kept']} kept on transformers"
    if totals["by_hand"]:
        text += f", {totals['by_hand']} places to look at by hand"
    return text + (f"; {totals['failed']} files cannot be parsed" if totals["failed"] else "")
