"""`modelwright train`."""

import dataclasses
import sys
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from modelwright.cli.build_model import ReformerSizes, parse_layers
from modelwright.cli.console import human_bytes, print_json, progress_console, result_console
from modelwright.cli.presets import PRESETS, with_preset
from modelwright.cli.progress import TrainingProgress
from modelwright.cli.run_summaries import OPTIONS, SIZES, SummaryRequest, is_of_summaries, run_summaries
from modelwright.cli.run_training import DEFAULT_STEPS, TrainRequest, run_training
from modelwright.core.errors import InputError
from modelwright.core.optional import is_matplotlib_available
from modelwright.training.settings import TrainingSettings

if TYPE_CHECKING:
    from modelwright.training.loop import TaskResult, TrainingResult

_TRAINING, _MODEL, _SAVING = "Training", "Model (a Reformer)", "Saving and measuring"
_SUMMARIES = "Summaries (--task summarize)"


class TaskName(StrEnum):
    """What is learned."""

    BYTES = "bytes"
    SUMMARIZE = "summarize"


def _option(panel: str, text: str, default: Any = None, **kwargs: Any) -> Any:
    """Return an option that is None unless given; `default` is what the help says it is then."""
    shown = "" if default is None else f" Default: {default}."
    return typer.Option(help=text + shown, rich_help_panel=panel, **kwargs)


_Out = Annotated[
    Path, typer.Option(metavar="OUT", help="Folder for the model, its checkpoints, metrics.jsonl and loss.png.")
]
_Text = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Text file to train on; repeat it for more. Its end is held out."),
]
_Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the newest checkpoint in OUT; options not given are as saved.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and no progress.")]
_Steps = Annotated[int | None, _option(_TRAINING, "Number of optimizer steps.", DEFAULT_STEPS)]
_Minutes = Annotated[
    float | None, _option(_TRAINING, "Instead of --steps: about so long, with steps counted during warm-up.")
]
_Window = Annotated[int | None, _option(_TRAINING, "Bytes in one example.", TrainingSettings.window)]
_Batch = Annotated[int | None, _option(_TRAINING, "Examples in a forward pass.", TrainingSettings.batch)]
_Accumulate = Annotated[
    int | None, _option(_TRAINING, "Forward passes whose gradients make one step.", TrainingSettings.accumulate)
]
_Lr = Annotated[float | None, _option(_TRAINING, "Peak learning rate.", TrainingSettings.lr)]
_FinalLr = Annotated[
    float | None, _option(_TRAINING, "Last learning rate, a fraction of the peak.", TrainingSettings.final_lr)
]
_Warmup = Annotated[int | None, _option(_TRAINING, "Steps in which the learning rate rises.", TrainingSettings.warmup)]
_WeightDecay = Annotated[float | None, _option(_TRAINING, "Decay of matrices.", TrainingSettings.weight_decay)]
_Beta1 = Annotated[float | None, _option(_TRAINING, "AdamW's memory of gradients.", TrainingSettings.beta1)]
_Beta2 = Annotated[float | None, _option(_TRAINING, "AdamW's memory of squared gradients.", TrainingSettings.beta2)]
_Clip = Annotated[float | None, _option(_TRAINING, "Largest gradient norm, 0: any.", TrainingSettings.clip)]
_Precision = Annotated[str | None, _option(_TRAINING, "fp32, or bf16 (mixed).", TrainingSettings.precision)]
_Device = Annotated[str | None, _option(_TRAINING, "auto or cpu.", TrainingSettings.device)]
_Seed = Annotated[int | None, _option(_TRAINING, "Seed of weights, windows and dropout.", TrainingSettings.seed)]
_Preset = Annotated[
    str | None,
    _option(
        _MODEL,
        f"A window and sizes that go together: {', '.join(PRESETS)}. Options given beside it count.",
        metavar="NAME",
    ),
]
_Hidden = Annotated[int | None, _option(_MODEL, "Width of the model.", ReformerSizes.hidden)]
_Layers = Annotated[
    str | None, _option(_MODEL, "Attention of each layer, local or lsh.", ",".join(ReformerSizes.layers))
]
_Heads = Annotated[int | None, _option(_MODEL, "Attention heads.", ReformerSizes.heads)]
_NumHashes = Annotated[int | None, _option(_MODEL, "Rounds of LSH.", ReformerSizes.num_hashes)]
_Chunk = Annotated[int | None, _option(_MODEL, "Tokens in a chunk of LSH attention.", ReformerSizes.chunk)]
_LocalChunk = Annotated[int | None, _option(_MODEL, "Tokens in a chunk of local attention.", ReformerSizes.local_chunk)]
_Dropout = Annotated[float | None, _option(_MODEL, "Dropout probability.", ReformerSizes.dropout)]
_Config = Annotated[
    Path | None, _option(_MODEL, "JSON configuration of any causal model, instead of the options above.")
]
_Task = Annotated[
    TaskName | None,
    _option(_TRAINING, "bytes (of --text, each from those before) or summarize (--pairs).", "bytes", metavar="TASK"),
]
_Pairs = Annotated[
    Path | None,
    _option(_SUMMARIES, 'JSON lines {"source": text, "target": text}; the last are held out.', metavar="FILE"),
]
_From = Annotated[
    Path | None,
    typer.Option(
        "--from",
        help="Folder of a model and its tokenizer to begin with. Default: BERT to BERT from scratch.",
        rich_help_panel=_SUMMARIES,
    ),
]
_VocabSize = Annotated[int | None, _option(_SUMMARIES, "Tokens of the tokenizer that is trained.", 8000)]
_SourceTokens = Annotated[int | None, _option(_SUMMARIES, "Tokens that a source is cut to.", 256)]
_TargetTokens = Annotated[int | None, _option(_SUMMARIES, "Tokens that a target is cut to.", 64)]
_EvalPairs = Annotated[int | None, _option(_SUMMARIES, "Held-out pairs measured at most.", 200)]
_Beams = Annotated[int | None, _option(_SUMMARIES, "Beams of the summaries that ROUGE is measured on.", 1)]
_HeldOut = Annotated[
    float | None, _option(_SAVING, "Fraction of the text, at its end, never trained on.", TrainingSettings.held_out)
]
_EvalBytes = Annotated[int | None, _option(_SAVING, "Held-out bytes measured at most.", TrainingSettings.eval_bytes)]
_EvalEvery = Annotated[int | None, _option(_SAVING, "Steps between measurements.", TrainingSettings.eval_every)]
_SaveEvery = Annotated[int | None, _option(_SAVING, "Steps between checkpoints.", TrainingSettings.save_every)]
_Keep = Annotated[int | None, _option(_SAVING, "Checkpoints that stay.", TrainingSettings.keep)]
_MaxShardSize = Annotated[str | None, _option(_SAVING, "Largest weights file.", TrainingSettings.max_shard_size)]


def train(
    out: _Out,
    text: _Text = None,
    resume: _Resume = False,
    json: _Json = False,
    steps: _Steps = None,
    minutes: _Minutes = None,
    window: _Window = None,
    batch: _Batch = None,
    accumulate: _Accumulate = None,
    lr: _Lr = None,
    final_lr: _FinalLr = None,
    warmup: _Warmup = None,
    weight_decay: _WeightDecay = None,
    beta1: _Beta1 = None,
    beta2: _Beta2 = None,
    clip: _Clip = None,
    precision: _Precision = None,
    device: _Device = None,
    seed: _Seed = None,
    preset: _Preset = None,
    hidden: _Hidden = None,
    layers: _Layers = None,
    heads: _Heads = None,
    num_hashes: _NumHashes = None,
    chunk: _Chunk = None,
    local_chunk: _LocalChunk = None,
    dropout: _Dropout = None,
    config: _Config = None,
    held_out: _HeldOut = None,
    eval_bytes: _EvalBytes = None,
    eval_every: _EvalEvery = None,
    save_every: _SaveEvery = None,
    keep: _Keep = None,
    max_shard_size: _MaxShardSize = None,
    task: _Task = None,
    pairs: _Pairs = None,
    start: _From = None,
    vocab_size: _VocabSize = None,
    source_tokens: _SourceTokens = None,
    target_tokens: _TargetTokens = None,
    eval_pairs: _EvalPairs = None,
    beams: _Beams = None,
) -> None:
    """Train a byte-level language model on text files, or a model that writes summaries on pairs of texts."""
    given = {name: value for name, value in locals().items() if value is not None}
    run = _runner(given)
    try:
        if json:
            print_json(result_dict(run()))
            return
        with TrainingProgress(progress_console()) as progress:
            result = run(observe=progress.observe)
    except KeyboardInterrupt:
        print(interrupted(out), file=sys.stderr)
        raise typer.Exit(130) from None
    print_result(result)


def _runner(given: dict[str, Any]) -> Callable[..., Any]:
    """Return what runs the training that these options ask for; it takes `observe`."""
    task = given.get("task")
    if task is None:
        saved = given["resume"] and is_of_summaries(given["out"])
        task = TaskName.SUMMARIZE if saved else TaskName.BYTES
    _check_task(task, given)
    given = with_preset(given)
    shared: dict[str, Any] = {name: given[name] for name in ("out", "config", "resume") if name in given}
    shared["settings"] = {name: given[name] for name in given if name in _SETTINGS}
    if task is TaskName.SUMMARIZE:
        own = {name: given[name] for name in ("pairs", "start", "vocab_size") if name in given}
        options, sizes = ({name: given[name] for name in names if name in given} for names in (OPTIONS, SIZES))
        return partial(run_summaries, SummaryRequest(**shared, **own, options=options, sizes=sizes))
    sizes = {name: parse_layers(given[name]) if name == "layers" else given[name] for name in given if name in _SIZES}
    return partial(run_training, TrainRequest(**shared, text=tuple(given.get("text", ())), sizes=sizes))


def _check_task(task: TaskName, given: dict[str, Any]) -> None:
    """Raise InputError for an option of the other task."""
    for_bytes, for_summaries = {"text", "preset", *_SIZES - set(SIZES)}, {"pairs", "start", "vocab_size", *OPTIONS}
    wrong = [name for name in given if name in (for_bytes if task is TaskName.SUMMARIZE else for_summaries)]
    if wrong:
        option = "--from" if wrong[0] == "start" else f"--{wrong[0].replace('_', '-')}"
        raise InputError(f"{option} has no meaning with --task {task}; leave it out, or give another --task.")


_SETTINGS = {field.name for field in dataclasses.fields(TrainingSettings)}
_SIZES = {field.name for field in dataclasses.fields(ReformerSizes)}


def interrupted(out: Path) -> str:
    """Return what to tell somebody who has stopped the training in `out`."""
    from modelwright.training.state import newest_checkpoint

    saved = newest_checkpoint(out)
    if saved is None:
        return "modelwright: interrupted before the first checkpoint; nothing can be resumed."
    return (
        f"modelwright: interrupted; the newest checkpoint is of step {saved.position.step}: go on with "
        f"modelwright train --resume --out {out}"
    )


def result_dict(result: "TrainingResult | TaskResult") -> dict[str, Any]:
    """Return the result as JSON values."""
    return {**dataclasses.asdict(result), "folder": str(result.folder)}


def print_result(result: "TrainingResult | TaskResult") -> None:
    """Print what a training measured as a table on stdout."""
    console = result_console()
    console.print(_scores_table(result) if hasattr(result, "scores") else _bits_table(result))
    memory = human_bytes(result.peak_rss_bytes)
    console.print(f"{result.seconds:,.0f} s, {result.tokens_per_s:,.0f} tokens/s, peak memory {memory}")
    console.print(f"saved in {result.folder}")
    if not is_matplotlib_available():
        console.print("no picture of the loss curve: pip install 'modelwright[plots]'")


def _scores_table(result: Any) -> Table:
    table = Table(title=f"held-out pairs after {result.steps:,} steps", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for name, value in result.scores.items():
        table.add_row("loss, nats per target token" if name == "loss" else f"{name}, F1", f"{value:.3f}")
    return table


def _bits_table(result: Any) -> Table:
    baselines = result.baselines
    table = Table(title=f"bits per byte on the {baselines.measured_bytes:,} held-out bytes", title_justify="left")
    table.add_column("method")
    table.add_column("bits/byte", justify="right")
    table.add_row(f"this model, {result.steps:,} steps", f"{result.held_out_bits:.3f}", style="bold")
    table.add_row("order-0 entropy of these bytes", f"{baselines.entropy:.3f}")
    table.add_row("xz -9e of these bytes alone", f"{baselines.xz:.3f}")
    if baselines.xz_primed is not None:
        table.add_row("xz -9e, what they add after the training text", f"{baselines.xz_primed:.3f}")
    return table
