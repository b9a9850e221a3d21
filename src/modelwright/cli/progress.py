"""The progress bar of a training: fed with its records, shows the loss, speed and peak memory."""

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from modelwright.cli.console import human_bytes
from modelwright.training.metrics import figure_of

if TYPE_CHECKING:
    from modelwright.training.metrics import Record


class TrainingProgress:
    """A context in which `observe` shows each record; held-out measurements stay as lines above the bar."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("step {task.completed:,.0f}/{task.fields[total_text]}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("train", total=None, total_text="?", figures="")
        self._smooth: float | None = None
        self._speed: float | None = None

    def __enter__(self) -> Self:
        return self  # the bar appears with the first record: what is refused before shows a sentence and no bar

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar.live.is_started:
            self._bar.stop()

    def observe(self, record: "Record") -> None:
        """Show one record of the training."""
        self._bar.start()
        total = record["total_steps"]
        known = {"total": total, "total_text": f"{total:,}"} if total is not None else {}
        if record["kind"] == "held_out":
            value, unit = figure_of(record)
            self._bar.console.print(f"step {record['step']:>7,}   held out {value:.3f} {unit}", highlight=False)
        if record["kind"] != "train":
            self._bar.update(self._task, completed=record["step"], **known)
            return
        value, unit = figure_of(record)
        self._smooth = _smoothed(self._smooth, value)
        self._speed = _smoothed(self._speed, record["tokens_per_s"])
        figures = (
            f"{self._smooth:.3f} {unit}  {self._speed:,.0f} tokens/s  peak {human_bytes(record['peak_rss_bytes'])}"
        )
        self._bar.update(self._task, completed=record["step"], figures=figures, **known)


def _smoothed(before: float | None, value: float) -> float:
    return value if before is None else 0.9 * before + 0.1 * value
