"""The report of `modelwright quantize`: as JSON, as Markdown, and the error of each layer as a picture."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.cli.console import human_bytes
from modelwright.core.optional import is_matplotlib_available, require

# The first rows of the summary are about size and time.
_ROWS_OF_COST = 2
JSON_NAME, TEXT_NAME, PICTURE_NAME = "quantization.json", "quantization.md", "quantization.png"


def write_report(report: dict[str, Any], folder: Path) -> list[str]:
    """Write the report's files into `folder` and return their names; no picture without matplotlib."""
    (folder / JSON_NAME).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (folder / TEXT_NAME).write_text(as_markdown(report), encoding="utf-8")
    names = [JSON_NAME, TEXT_NAME]
    if is_matplotlib_available():
        draw_costs(report, folder / PICTURE_NAME)
        names.append(PICTURE_NAME)
    return names


def columns(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the heads of the table's columns."""
    trained = ("INT8, not trained", "INT8, trained") if "training" in report else ("INT8 (ONNX Runtime)",)
    return ("", "float (PyTorch)", *trained, "")


def summary(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of the table: what, float, INT8 (before a training, if there was one, and after it), ratio."""
    size, time, accuracy = report["bytes"], report["milliseconds"], report["accuracy"]
    measured = [accuracy["in_onnx_runtime"]]
    if "training" in report:
        measured.insert(0, accuracy["before_training"])
    before = ("",) * (len(measured) - 1)
    rows: list[tuple[str, ...]] = [
        (
            "size",
            human_bytes(size["float"]),
            *before,
            human_bytes(size["int8"]),
            f"{size['int8'] / size['float']:.2f}x",
        ),
        (
            f"one text of {report['tokens_of_latency']} tokens",
            f"{time['float']:.1f} ms",
            *before,
            f"{time['int8']:.1f} ms",
            f"{time['float'] / time['int8']:.1f}x as fast",
        ),
    ]
    for name, of_float in accuracy["float"].get("scores", {}).items():
        found = [each["scores"][name] for each in measured]
        rows.append(
            (
                name.replace("_", " "),
                *(f"{100 * value:.2f} %" for value in (of_float, *found)),
                f"{100 * (found[-1] - of_float):+.2f} points",
            )
        )
    for name, what in (("mean", "mean"), ("minimum", "lowest")):
        rows.append((f"cosine to float, {what}", "1", *(f"{each[name]:.4f}" for each in measured), ""))
    return rows


def bar_sentence(report: Mapping[str, Any]) -> str:
    """Return what was asked for and whether it holds, as a sentence."""
    bar, holds = report["accuracy"]["bar"], "holds" if report["accuracy"]["holds"] else "missed"
    if bar["measure"] == "cosine":
        return f"Bar: cosine of {bar['mean']:.4f} on average and {bar['minimum']:.4f} at least: {holds}."
    counted = report["texts"]
    return (
        f"Bar: {100 * bar['kept']:g} % of the float model's {bar['measure']}, so {100 * bar['least']:.2f} %: {holds} "
        f"(one of {counted['held_out']} {counted['what']} is {100 / counted['held_out']:.2f} %)."
    )


def as_markdown(report: Mapping[str, Any]) -> str:
    """Return the report as text."""
    texts, heads = report["texts"], columns(report)
    what = texts["what"]
    lines = [
        f"# {report['checkpoint']} as INT8",
        "",
        f"Recipe `{report['recipe']}` for `{report['target']}`; ranges of {texts['calibration']} {what}, judged on "
        f"{texts['held_out']} others.",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
        *(f"| {' | '.join(row)} |" for row in summary(report)),
        "",
        bar_sentence(report),
    ]
    if "training" in report:
        lines.append(_training_sentence(report["training"], what))
    if report["alpha"] is not None:
        lines.append(
            f"Inputs are smoothed (SmoothQuant, alpha {report['alpha']:g}): their large channels are divided, and the "
            "weights that meet them multiplied."
        )
    if "fusion" in report:
        fusion = report["fusion"]
        lines.append(
            f"ONNX Runtime runs {fusion['integer']} of {fusion['quantized']} quantized products with integers."
        )
    return "\n".join([*lines, *_float_lines(report), *_cost_lines(report)]) + "\n"


def _training_sentence(training: Mapping[str, Any], what: str) -> str:
    teacher = "the float model's outputs" if training["distill"] else "labels"
    rows = "" if training["rows"] == training["items"] else f" ({training['rows']} windows)"
    return (
        f"Trained with the quantizers on, from {teacher}: {training['items']} {what}{rows} of {training['file']}, "
        f"{training['epochs']:g} epochs in {training['steps']} steps of {training['batch']}, learning rate "
        f"{training['lr']:g}, {training['seconds']:.0f} s. {_kept_sentence(training)}"
    )


def _kept_sentence(training: Mapping[str, Any]) -> str:
    loss = training["held_out_loss"]
    change = f"from {loss['before']:.4g} to {loss['after']:.4g}"
    if training["kept"] == "trained":
        return f"The loss on what judges went {change}."
    return (
        f"The loss on what judges rose {change}, so the weights are those before training: try a lower --lr or more "
        "examples."
    )


def _float_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the table of what stayed float, and why."""
    if not report["float_layers"]:
        return []
    measure = report["accuracy"]["bar"]["measure"]
    share = f"{100 * report['float_share']:.0f} % of the linear products"
    lines = ["", f"## Layers that stayed float ({share})", ""]
    lines += [
        "Made float costliest first, until no more than half of what the bar allows is lost or too much is float.",
        "",
    ]
    lines += [
        f"| layer | cost | {'lowest cosine' if measure == 'cosine' else measure} with it and those above in float |",
        "|---|---|---|",
    ]
    for name, fidelity in report["float_layers"].items():
        value = f"{fidelity['minimum']:.4f}" if measure == "cosine" else f"{100 * fidelity['score']:.2f} %"
        lines.append(f"| {name} | {report['sensitivity'][name]:.2e} | {value} |")
    return lines


def _cost_lines(report: Mapping[str, Any]) -> list[str]:
    lines = ["", "## What each layer costs", ""]
    lines += [
        "cost: 1 - mean cosine with only that layer quantized. ONNX against PyTorch: how far the file's layer is from",
        "PyTorch's with the same input, as a share of its output.",
        "",
    ]
    lines += ["| layer | cost | ONNX against PyTorch |", "|---|---|---|"]
    differences = report["layer_differences"]
    for name, cost in report["sensitivity"].items():
        other = f"{differences[name]:.1e}" if name in differences else "float" if name in report["float_layers"] else ""
        lines.append(f"| {name} | {cost:.2e} | {other} |")
    return lines


def draw_costs(report: Mapping[str, Any], path: Path) -> None:
    """Draw the cost of each layer as bars below what was measured; raise MissingPackageError without matplotlib."""
    figures = require("matplotlib.figure", extra="plots", why="Drawing the cost of layers")
    costs: Mapping[str, float] = report["sensitivity"]
    figure = figures.Figure(figsize=(9, 1.8 + 0.2 * len(costs)), layout="constrained")
    axes = figure.add_subplot()
    for stayed, color, label in ((False, "tab:blue", "INT8"), (True, "tab:orange", "stayed float")):
        some = {name: max(cost, 1e-9) for name, cost in costs.items() if (name in report["float_layers"]) is stayed}
        if some:
            places = [place for place, name in enumerate(costs) if name in some]
            axes.barh(places, list(some.values()), color=color, label=label)
    axes.set_yticks(range(len(costs)), list(costs), fontsize=8)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.grid(axis="x", linewidth=0.4)
    axes.set_axisbelow(True)
    axes.set(xscale="log", xlabel="1 - mean cosine, only this layer quantized")
    axes.legend(loc="lower right", fontsize=8)
    heads, measured = columns(report)[1:-1], summary(report)[_ROWS_OF_COST:]
    # A float model's cosine to itself, 1, tells nothing.
    pairs = {row[0]: [pair for pair in zip(heads, row[1:-1], strict=True) if pair[1] != "1"] for row in measured}
    lines = [f"{name}: " + ", ".join(map(" ".join, values)) for name, values in pairs.items()]
    axes.set_title("\n".join(["What quantizing each layer costs", *lines]), fontsize=9)
    figure.savefig(path, dpi=120)
