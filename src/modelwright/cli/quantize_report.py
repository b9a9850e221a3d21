"""The report of `modelwright quantize`: as JSON, as Markdown, and the error of each layer as a picture."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.cli.console import human_bytes
from modelwright.core.optional import is_matplotlib_available, require

JSON_NAME, TEXT_NAME, PICTURE_NAME = "quantization.json", "quantization.md", "quantization.png"


def write_report(report: dict[str, Any], folder: Path) -> list[str]:
    """Write the report's files into `folder` and return their names; no picture without matplotlib."""
    (folder / JSON_NAME).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (folder / TEXT_NAME).write_text(as_markdown(report), encoding="utf-8")
    names = [JSON_NAME, TEXT_NAME]
    if is_matplotlib_available():
        draw_costs(report["sensitivity"], report["float_layers"], folder / PICTURE_NAME)
        names.append(PICTURE_NAME)
    return names


def summary(report: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table: what, float, INT8, ratio."""
    size, time, found = report["bytes"], report["milliseconds"], report["accuracy"]["in_onnx_runtime"]
    return [
        ("size", human_bytes(size["float"]), human_bytes(size["int8"]), f"{size['int8'] / size['float']:.2f}x"),
        (
            "one text",
            f"{time['float']:.1f} ms",
            f"{time['int8']:.1f} ms",
            f"{time['float'] / time['int8']:.1f}x as fast",
        ),
        ("cosine to float, mean", "1", f"{found['mean']:.4f}", ""),
        ("cosine to float, lowest", "1", f"{found['minimum']:.4f}", ""),
    ]


def as_markdown(report: Mapping[str, Any]) -> str:
    """Return the report as text."""
    accuracy, texts = report["accuracy"], report["texts"]
    lines = [
        f"# {report['checkpoint']} as INT8",
        "",
        f"Recipe `{report['recipe']}` for `{report['target']}`; ranges of {texts['calibration']} texts, judged on "
        f"{texts['held_out']} others.",
        "",
        "| | float (PyTorch) | INT8 (ONNX Runtime) | |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in summary(report)),
        "",
        f"Bar: cosine of {accuracy['bar']['mean']:.4f} on average and {accuracy['bar']['minimum']:.4f} at least: "
        f"{'holds' if accuracy['holds'] else 'missed'}.",
    ]
    if report["alpha"] is not None:
        lines.append(f"Inputs smoothed with alpha {report['alpha']}.")
    if "fusion" in report:
        fusion = report["fusion"]
        lines.append(
            f"ONNX Runtime runs {fusion['integer']} of {fusion['quantized']} quantized products with integers."
        )
    if report["float_layers"]:
        share = f"{100 * report['float_share']:.0f} % of the linear products"
        lines += ["", f"## Layers that stayed float ({share})", "", "| layer | cost alone | lowest cosine without it |"]
        lines.append("|---|---|---|")
        for name, fidelity in report["float_layers"].items():
            lines.append(f"| {name} | {report['sensitivity'][name]:.2e} | {fidelity['minimum']:.4f} |")
    lines += ["", "## What each layer costs", "", "1 - mean cosine with only that layer quantized.", ""]
    lines += ["| layer | cost | ONNX against PyTorch |", "|---|---|---|"]
    differences = report["layer_differences"]
    for name, cost in report["sensitivity"].items():
        other = f"{differences[name]:.1e}" if name in differences else "float"
        lines.append(f"| {name} | {cost:.2e} | {other} |")
    return "\n".join(lines) + "\n"


def draw_costs(costs: Mapping[str, float], float_layers: Mapping[str, Any], path: Path) -> None:
    """Draw the cost of each layer as bars; raise MissingPackageError without matplotlib."""
    figures = require("matplotlib.figure", extra="plots", why="Drawing the cost of layers")
    figure = figures.Figure(figsize=(8, 1 + 0.16 * len(costs)), layout="constrained")
    axes = figure.add_subplot()
    names = list(costs)
    colors = ["tab:orange" if name in float_layers else "tab:blue" for name in names]
    axes.barh(names, [max(cost, 1e-9) for cost in costs.values()], color=colors)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=6)
    axes.set(xscale="log", xlabel="1 - mean cosine, only this layer quantized (orange: stayed float)")
    figure.savefig(path, dpi=120)
