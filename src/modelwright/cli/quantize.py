"""`modelwright quantize`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from modelwright.cli.console import print_json, progress_console, result_console
from modelwright.cli.quantize_report import summary, write_report
from modelwright.cli.run_quantize import QuantizeRequest, run_quantize
from modelwright.core.errors import InputError


def quantize(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="Folder or hub name of a float encoder.")],
    calib: Annotated[Path, typer.Option(help="Text file, a text a line; a quarter of it judges the result.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, model.onnx and the report.")],
    recipe: Annotated[str, typer.Option(help="auto, linear, linear+matmul or full (QDQBERT's places).")] = "auto",
    target: Annotated[str, typer.Option(help="onnxruntime-cpu or tensorrt.")] = "onnxruntime-cpu",
    accuracy_bar: Annotated[
        float | None, typer.Option(help="Mean cosine to the float outputs; exit code 1 below it. Default: 0.998, auto.")
    ] = None,
    quantize_embeddings: Annotated[
        bool, typer.Option("--quantize-embeddings", help="Store embedding tables in the ONNX file as int8 too.")
    ] = False,
    max_length: Annotated[int, typer.Option(help="The most tokens of a text.")] = 128,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to measure with.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and no progress.")] = False,
) -> None:
    """Quantize an encoder to INT8: calibrate on texts, write the checkpoint, an ONNX file and a report of the cost."""
    if accuracy_bar is not None and not 0 < accuracy_bar < 1:
        raise InputError(f"--accuracy-bar: expected a cosine between 0 and 1, got {accuracy_bar}")
    request = QuantizeRequest(
        checkpoint, calib, out, recipe, target, accuracy_bar, quantize_embeddings, max_length, threads
    )
    with QuantizeProgress(disable=json) as progress:
        report = run_quantize(request, progress.observe)
    files = write_report(report, out)
    if json:
        print_json(report)
    else:
        print_result(report, files)
    if accuracy_bar is not None and not report["accuracy"]["holds"]:
        raise typer.Exit(1)


class QuantizeProgress(Progress):
    """A bar for the step that is done now."""

    def __init__(self, *, disable: bool = False) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        super().__init__(*columns, console=progress_console(), transient=True, disable=disable)
        self._one = self.add_task("starting", total=1)

    def observe(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` parts of the step `what` are done."""
        self.update(self._one, description=what, completed=done, total=total)


def print_result(report: dict[str, Any], files: list[str]) -> None:
    """Print the figures of a report, and where it is."""
    console = result_console()
    table = Table("", "float (PyTorch)", "INT8 (ONNX Runtime)", "")
    for row in summary(report):
        table.add_row(*row)
    console.print(table)
    for name in report["float_layers"]:
        console.print(f"stayed float: {name}", markup=False)
    bar = report["accuracy"]
    console.print(f"bar of {bar['bar']['mean']:g}: {'holds' if bar['holds'] else 'missed'}")
    console.print(f"saved in {report['folder']}; the report is in {', '.join(files)}")
