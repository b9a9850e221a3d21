"""What `modelwright quantize` quantizes, and on which examples it is judged, by task."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.cli.texts import labels_of, load_model, longest, read_texts
from modelwright.core.errors import InputError, check_choice

if TYPE_CHECKING:
    from modelwright.training.examples import ExampleKind, Examples

TASKS = ("classify", "qa")
# Of the groups of items (texts; contexts with their questions), every so manieth is held out and judges the model.
HELD_OUT = 4
LEAST_ITEMS = 8
# On how many items ranges are found, at most.
MOST_SEEN = 256
DEFAULT_LENGTH, LENGTH_OF_QUESTIONS = 128, 384


@dataclass
class Subject:
    """A float model with its tokenizer, examples for its ranges (`seen`), and others that judge (`held_out`)."""

    model: Any
    tokenizer: Any
    kind: "ExampleKind"
    seen: "Examples"
    held_out: "Examples"


def load_subject(checkpoint: str, task: str | None, calib: Path, max_length: int | None, stride: int | None) -> Subject:
    """Load the model of `checkpoint` for `task` and the examples of the file `calib`.

    Raises InputError for a file that does not fit the task, and for a model whose head was not trained for it.
    """
    from modelwright.models.auto.tokenization_auto import AutoTokenizer
    from modelwright.training.examples import Examples, split, spread

    if task is not None:
        check_choice("--task", task, TASKS)
    if stride is not None and task != "qa":
        raise InputError("--stride is about windows of long contexts: it has no meaning without --task qa")
    items = read_items("--calib", calib, checkpoint, task)
    model = load_model(checkpoint) if task is None else _load_head(checkpoint, task)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    wanted = max_length or (LENGTH_OF_QUESTIONS if task == "qa" else DEFAULT_LENGTH)
    kind = _kind(task, tokenizer, longest(model.config, wanted), stride, items)
    seen, held_out = split(kind, items, HELD_OUT)
    if not seen:
        raise InputError(
            f"--calib: {calib}: expected questions about at least 2 contexts: some of them judge the others"
        )
    return Subject(model, tokenizer, kind, Examples(kind, spread(seen, MOST_SEEN)), Examples(kind, held_out))


def read_items(option: str, path: Path, checkpoint: str, task: str | None) -> list[Any]:
    """Return the items of a file: lines of text, or what `task` reads; raise InputError for other files and too few."""
    from modelwright.training.labelled import read_labelled
    from modelwright.training.squad import read_squad

    if task is None:
        texts = read_texts(option, path, LEAST_ITEMS)
        if all(text.startswith("{") and text.endswith("}") for text in texts):
            raise InputError(f"{option}: {path}: expected plain text, found JSON lines; did you mean --task classify?")
        return texts
    if task == "qa":
        items: list[Any] = read_squad(option, path)
    else:
        items = read_labelled(option, path, _labels(checkpoint))
    if len(items) < LEAST_ITEMS:
        what = "questions" if task == "qa" else "texts"
        raise InputError(f"{option}: {path}: expected at least {LEAST_ITEMS} {what}, found {len(items)}")
    return items


def _labels(checkpoint: str) -> dict[int, str]:
    from modelwright.models.auto.configuration_auto import AutoConfig

    config = AutoConfig.from_pretrained(checkpoint)
    labels, problem = labels_of(config), getattr(config, "problem_type", None)
    if len(labels) < 2 or problem not in (None, "single_label_classification"):
        raise InputError(
            f"--task classify: {checkpoint}: expected a model that chooses one of several labels, found {len(labels)} "
            f"labels and problem_type={problem!r}; without --task the cosine to the float outputs is the accuracy"
        )
    return labels


def _kind(task: str | None, tokenizer: Any, length: int, stride: int | None, items: list[Any]) -> "ExampleKind":
    from modelwright.training.answers import QuestionKind
    from modelwright.training.examples import TextKind
    from modelwright.training.labelled import LabelledKind

    if task is None:
        return TextKind(tokenizer, length)
    if task == "classify":
        return LabelledKind(tokenizer, length, labelled=items[0].label is not None)
    stride = length // 4 if stride is None else stride
    return QuestionKind(tokenizer, length, stride=stride, labelled=items[0].answers is not None)


def _load_head(checkpoint: str, task: str) -> Any:
    from modelwright.models.auto.modeling_auto import AutoModelForQuestionAnswering, AutoModelForSequenceClassification

    kind = AutoModelForQuestionAnswering if task == "qa" else AutoModelForSequenceClassification
    model, info = kind.from_pretrained(checkpoint, output_loading_info=True)
    if missing := sorted(info["missing_keys"]):
        raise InputError(
            f"--task {task}: {checkpoint}: expected a model that was trained for it, found no {', '.join(missing)}; "
            "without --task any encoder is quantized, and the cosine to its outputs is the accuracy"
        )
    return model.eval()
