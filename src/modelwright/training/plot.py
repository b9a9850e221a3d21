"""The loss curve as a picture: the loss against the step, with the held-out points and, of bytes, the baselines."""

from collections.abc import Sequence
from pathlib import Path

from modelwright.core.errors import InputError
from modelwright.core.optional import require
from modelwright.training.metrics import Record, figure_of

PLOT_NAME = "loss.png"


def plot_loss(records: Sequence[Record], path: Path) -> None:
    """Draw `records` (of `read_metrics`) into the PNG file at `path`.

    Raises MissingPackageError, which names the extra, without matplotlib; InputError if no step is recorded.
    """
    figures = require("matplotlib.figure", extra="plots", why="Drawing the loss curve")
    train = [record for record in records if record["kind"] == "train"]
    held_out = [record for record in records if record["kind"] == "held_out"]
    if not train:
        raise InputError(f"Loss curve {path}: expected at least one recorded training step, got none.")
    figure = figures.Figure(figsize=(8, 5), layout="constrained")  # not pyplot, whose state belongs to the process
    axes = figure.add_subplot()
    axes.plot([r["step"] for r in train], [figure_of(r)[0] for r in train], linewidth=0.8, label="training")
    axes.plot([r["step"] for r in held_out], [figure_of(r)[0] for r in held_out], "o", label="held out")
    for record in records:
        if record["kind"] == "start" and "baselines" in record:
            baselines = record["baselines"]
            axes.axhline(baselines["entropy"], color="gray", linestyle=":", label="held out: order-0 entropy")
            axes.axhline(baselines["xz"], color="black", linestyle="--", label="held out: xz -9e")
    axes.set(xlabel="step", ylabel=figure_of(train[0])[1], ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=120)
