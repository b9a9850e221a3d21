"""The main job from start to end: train a byte-level Reformer on real text, save, verify, reload, generate.

Run by `make demo`, or with other text: `python tools/demo.py --text FILE`. Every figure that it prints is measured in
the run. It does what `modelwright train`, `verify` and `generate` do, through the same functions.
"""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from modelwright.checkpoint.verify import verify
from modelwright.cli.console import progress_console, result_console
from modelwright.cli.generate import continue_prompt, load
from modelwright.cli.progress import TrainingProgress
from modelwright.cli.run_training import TrainRequest, run_training
from modelwright.cli.train import print_result
from modelwright.core.errors import ModelwrightError

# For two minutes on two cores the number of steps is what counts: a small model takes many, and local chunks of four
# tokens soon learn to look at the few bytes before (with chunks of 64 the same steps stay at what one byte tells).
SIZES = {"hidden": 128, "layers": ("local", "local", "lsh", "local"), "heads": 4, "chunk": 64, "local_chunk": 4}
SETTINGS = {"window": 4096, "batch": 1, "lr": 3e-3, "warmup": 20, "eval_every": 25}
SHARD = "1MB"  # small, so that the demo saves several weights files
PROMPT = "The with statement"


def language_reference(path: Path) -> None:
    """Write Python's language reference, as the standard library holds it for `help()`, to `path`."""
    from pydoc_data.topics import topics

    path.write_text("\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n", encoding="utf-8")


def demo(
    out: Annotated[Path, typer.Option(help="Folder for all that is written.")] = Path("demo-output"),
    text: Annotated[list[Path] | None, typer.Option(help="Text instead of Python's language reference.")] = None,
    minutes: Annotated[float, typer.Option(help="About how long to train.")] = 2.0,
    seed: Annotated[int, typer.Option(help="Of the weights, the windows and the generated text.")] = 0,
) -> None:
    """Train, save, verify, reload and generate."""
    console = result_console()
    out.mkdir(parents=True, exist_ok=True)
    if not text:
        text = [out / "python-language-reference.txt"]
        language_reference(text[0])
    folder = out / "model"
    if folder.exists():
        shutil.rmtree(folder)
    size = sum(path.stat().st_size for path in text)
    console.rule(f"1. Train on {size:,} bytes for about {minutes:g} minutes", align="left")
    request = TrainRequest(
        out=folder,
        text=tuple(text),
        settings={**SETTINGS, "minutes": minutes, "seed": seed, "max_shard_size": SHARD},
        sizes=SIZES,
    )
    with TrainingProgress(progress_console()) as progress:
        result = run_training(request, observe=progress.observe)
    print_result(result)
    console.rule("2. Verify what was saved", align="left")
    report = verify(folder)
    console.print(str(report), markup=False)
    if not report.ok:
        raise SystemExit(1)
    console.rule("3. Reload and continue a text", align="left")
    model, tokenizer = load(str(folder))
    sampling = {"temperature": 0.7, "top_k": 0, "top_p": 0.95}
    continue_prompt(model, tokenizer, PROMPT, max_new_tokens=300, sampling=sampling, seed=seed, stream=True)
    console.rule("again, or with your own text", align="left")
    console.print(f'modelwright train --text FILE --out runs/mine\nmodelwright generate {folder} --prompt "{PROMPT}"')


if __name__ == "__main__":
    try:
        typer.run(demo)
    except ModelwrightError as error:
        raise SystemExit(f"demo: {error}") from error
