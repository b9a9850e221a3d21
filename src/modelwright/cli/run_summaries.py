"""What `train --task summarize` does once its options are read: make or load tokenizer and model, then train."""

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.cli.build_model import building_from, config_from, config_from_file
from modelwright.cli.run_training import draw_curve, fresh_settings
from modelwright.core.errors import InputError
from modelwright.training.settings import TrainingSettings

if TYPE_CHECKING:
    from modelwright.training.loop import Observer, TaskResult
    from modelwright.training.pairs import PairsFile
    from modelwright.training.state import Saved

DEFAULT_BATCH = 16
DEFAULT_VOCAB = 8000
OPTIONS = ("source_tokens", "target_tokens", "eval_pairs", "beams")
SIZES = ("hidden", "heads", "dropout")
# Settings that are about bytes.
_NOT_OURS = ("window", "eval_bytes")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SummaryRequest:
    """One training as the user asked for it.

    settings, options and sizes hold only what was given: the rest is a default, or in a resumed training what was
    saved. start: a folder with a model and its tokenizer to begin with.
    """

    out: Path
    pairs: Path | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sizes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config: Path | None = None
    start: Path | None = None
    vocab_size: int | None = None
    resume: bool = False


def is_of_summaries(out: Path) -> bool:
    """Tell whether the training that is saved in `out` is one of summaries."""
    from modelwright.training.state import newest_checkpoint

    try:
        saved = newest_checkpoint(out)
    except OSError:  # no folder for a training, which is said when it begins
        return False
    return saved is not None and "pairs" in saved.facts.text


def run_summaries(request: SummaryRequest, *, observe: "Observer | None" = None) -> "TaskResult":
    """Train as `request` asks and return what was measured; the model, the metrics and the curve are in `request.out`.

    Raises InputError, RepoError, CheckpointError, CheckpointMismatchError, DivergedError, MissingPackageError.
    """
    _check(request)
    from modelwright.training.folder import check_folder
    from modelwright.training.loop import train_task
    from modelwright.training.pairs import PairsFile
    from modelwright.training.state import newest_checkpoint
    from modelwright.training.summaries import SummaryOptions, SummaryTask

    check_folder(request.out)
    saved = newest_checkpoint(request.out) if request.resume else None
    if saved is not None:
        settings = TrainingSettings.from_dict({**saved.facts.settings, **request.settings})
        kept = {name: saved.facts.text[name] for name in OPTIONS}
        options = SummaryOptions(**{**kept, **request.options})
        path = request.pairs or Path(saved.facts.text_paths[0])
    else:
        settings = fresh_settings({"batch": DEFAULT_BATCH, **request.settings})
        options = SummaryOptions(**request.options)
        if request.pairs is None:
            what = f"--resume: {request.out} holds no checkpoint to go on from" if request.resume else "no --pairs"
            raise InputError(f"{what}; start a training with --task summarize --pairs FILE.")
        path = request.pairs
    pairs = PairsFile(path, held_out=settings.held_out)
    if saved is not None:
        model, tokenizer = _saved_model(saved, settings.seed)
    elif request.start is not None:
        model, tokenizer = _model_of_folder(request.start)
    else:
        model, tokenizer = _new_model(request, pairs, options, settings.seed)
    task = SummaryTask(pairs, tokenizer, seed=settings.seed, batch=settings.batch, options=options)
    if model.config.eos_token_id is None:
        # So that the saved model ends its texts.
        model.config.eos_token_id = model.generation_config.eos_token_id = task.end
    result = train_task(
        model, task, settings, tokenizer=tokenizer, out=request.out, resume=request.resume, observe=observe
    )
    draw_curve(request.out)
    return result


def _check(request: SummaryRequest) -> None:
    """Raise InputError for options that do not go together."""
    for name in _NOT_OURS:
        if name in request.settings:
            raise InputError(f"--{name.replace('_', '-')} is about bytes: it has no meaning with --task summarize.")
    model = {"--config": request.config, "--from": request.start, "--vocab-size": request.vocab_size}
    model |= {f"--{name}": value for name, value in request.sizes.items()}
    given = [name for name, value in model.items() if value is not None]
    if request.resume and given:
        raise InputError(f"--resume goes on with the saved model and tokenizer: leave out {', '.join(given)}.")
    whole = [name for name in given if name in ("--config", "--from")]
    fits = {"--config", "--vocab-size"} if whole == ["--config"] else {*whole}
    if whole and set(given) - fits:
        raise InputError(f"{whole[0]} describes the whole model: expected it alone, got {', '.join(given)}.")


def _saved_model(saved: "Saved", seed: int) -> tuple[Any, Any]:
    from modelwright.models.auto.tokenization_auto import AutoTokenizer

    return _from_config(config_from(saved.facts.model), saved.folder, seed), AutoTokenizer.from_pretrained(saved.folder)


def _model_of_folder(folder: Path) -> tuple[Any, Any]:
    from modelwright.models.auto.modeling_auto import AutoModelForSeq2SeqLM
    from modelwright.models.auto.tokenization_auto import AutoTokenizer

    return AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def _new_model(request: SummaryRequest, pairs: "PairsFile", options: Any, seed: int) -> tuple[Any, Any]:
    """Return a model of the config, else BERT to BERT, and WordPiece trained on the texts to train on."""
    from modelwright.cli.tokenizer import Kind, make_tokenizer

    config = None if request.config is None else config_from_file(request.config)
    size = request.vocab_size or (DEFAULT_VOCAB if config is None else config.vocab_size)
    texts = (text for pair in pairs.train for text in (pair.source, pair.target))
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = make_tokenizer(Kind.WORDPIECE, texts, size, Path(folder))
    if config is None:
        config = config_from(bert_to_bert(request.sizes, len(tokenizer), options))
    for name, value in (("decoder_start_token_id", tokenizer.cls_token_id), ("pad_token_id", tokenizer.pad_token_id)):
        if getattr(config, name) is None:
            setattr(config, name, value)
    return _from_config(config, request.config or "the options given", seed), tokenizer


def bert_to_bert(sizes: Mapping[str, Any], vocab_size: int, options: Any) -> dict[str, Any]:
    """Return the values of a config of two small BERTs, three layers each, that share nothing."""
    hidden, dropout = sizes.get("hidden", 128), sizes.get("dropout", 0.1)
    part = {
        "model_type": "bert",
        "vocab_size": vocab_size,
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": 3,
        "num_attention_heads": sizes.get("heads", 4),
        "max_position_embeddings": max(options.source_tokens, options.target_tokens + 1),
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        # So that a layer of this width keeps the scale of what it gets.
        "initializer_range": 0.5 * hidden**-0.5,
    }
    decoder = {**part, "is_decoder": True, "add_cross_attention": True}
    return {"model_type": "encoder-decoder", "encoder": part, "decoder": decoder}


def _from_config(config: Any, source: str | Path, seed: int) -> Any:
    from modelwright.models.auto.modeling_auto import AutoModelForSeq2SeqLM
    from modelwright.training.rng import seeded

    with seeded(seed), building_from(source):
        return AutoModelForSeq2SeqLM.from_config(config)
