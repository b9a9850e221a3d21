"""`modelwright quantize`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from modelwright.cli.console import print_json, progress_console, result_console
from modelwright.cli.quantize_report import bar_sentence, columns, summary, write_report
from modelwright.cli.quantize_training import BATCH, EPOCHS, LR, LR_OF_DISTILLING, Training, has_checkpoint
from modelwright.cli.run_quantize import QuantizeRequest, run_quantize

_QAT: Any = {"rich_help_panel": "Quantization-aware training"}
_LR_HELP = f"Highest learning rate. Default: {LR:g}, with --distill {LR_OF_DISTILLING:g}."


def quantize(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="Folder or hub name of a float encoder.")],
    calib: Annotated[Path, typer.Option(help="Text file, a text a line; a quarter of it judges the result.")],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint, model.onnx and the report.")],
    recipe: Annotated[str, typer.Option(help="auto, linear, linear+matmul or full (QDQBERT's places).")] = "auto",
    target: Annotated[str, typer.Option(help="onnxruntime-cpu or tensorrt.")] = "onnxruntime-cpu",
    task: Annotated[
        str | None,
        typer.Option(
            help='What --calib is: classify, JSON lines {"text": ..., "label": ...} (and "text_pair"); or qa, the '
            "format of SQuAD. Accuracy or F1 are then measured. Default: plain text.",
        ),
    ] = None,
    accuracy_bar: Annotated[
        float | None,
        typer.Option(
            help="Layers stay float until it holds; exit code 1 if it does not. With labels the share of the float "
            "model's accuracy or F1 to keep (default of auto: 0.99), else the mean cosine to its outputs (0.998)."
        ),
    ] = None,
    quantize_embeddings: Annotated[
        bool, typer.Option("--quantize-embeddings", help="Store embedding tables in the ONNX file as int8 too.")
    ] = False,
    max_length: Annotated[
        int | None, typer.Option(help="The most tokens of a text, or of a window. Default: 128, of qa 384.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(help="Tokens in which windows of a context overlap. Default: a quarter of a window.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads to measure with.")] = None,
    qat: Annotated[
        bool, typer.Option("--qat", help="Train after calibration, with the quantizers on.", **_QAT)
    ] = False,
    train: Annotated[Path | None, typer.Option(help="File to train on, of the form of --calib.", **_QAT)] = None,
    epochs: Annotated[float | None, typer.Option(help=f"Epochs. Default: {EPOCHS:g}.", **_QAT)] = None,
    distill: Annotated[
        bool,
        typer.Option(
            "--distill", help="Learn the float model's outputs (and the labels, where there are any).", **_QAT
        ),
    ] = False,
    lr: Annotated[float | None, typer.Option(help=_LR_HELP, **_QAT)] = None,
    batch: Annotated[int | None, typer.Option(help=f"Rows of a step. Default: {BATCH}.", **_QAT)] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training that was interrupted in --out.", **_QAT)
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and no progress.")] = False,
) -> None:
    """Quantize an encoder to INT8: calibrate on texts, write the checkpoint, an ONNX file and a report of the cost."""
    request = QuantizeRequest(
        checkpoint=checkpoint,
        calib=calib,
        out=out,
        recipe=recipe,
        target=target,
        accuracy_bar=accuracy_bar,
        quantize_embeddings=quantize_embeddings,
        max_length=max_length,
        threads=threads,
        task=task,
        stride=stride,
        training=Training.of_options(
            qat, {"train": train, "epochs": epochs, "distill": distill, "lr": lr, "batch": batch, "resume": resume}
        ),
    )
    try:
        with QuantizeProgress(disable=json) as progress:
            report = run_quantize(request, progress.observe)
    except KeyboardInterrupt:
        if request.training is not None:
            how = "with --resume goes on with the training" if has_checkpoint(out) else "begins again"
            print(f"modelwright: interrupted; the same command {how}", file=sys.stderr)
        raise typer.Exit(130) from None
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
    table = Table(*columns(report))
    for row in summary(report):
        table.add_row(*row)
    console.print(table)
    for name in report["float_layers"]:
        console.print(f"stayed float: {name}", markup=False)
    console.print(bar_sentence(report))
    console.print(f"saved in {report['folder']}; the report is in {', '.join(files)}")
