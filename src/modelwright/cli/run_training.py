"""What `train` does once its options are read: build or restore, train, plot. The demo calls it too."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.cli.build_model import (
    SIZE_KEYS,
    ReformerSizes,
    config_from,
    config_from_file,
    make_model,
    reformer_config,
)
from modelwright.core.errors import InputError
from modelwright.core.optional import is_matplotlib_available
from modelwright.training.settings import TrainingSettings, differences

if TYPE_CHECKING:
    from modelwright.config.configuration import PretrainedConfig
    from modelwright.training.loop import Observer, TrainingResult
    from modelwright.training.state import Saved

DEFAULT_STEPS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """One training as the user asked for it.

    settings and sizes hold only what was given: the rest is a default, or in a resumed training what was saved.
    """

    out: Path
    text: tuple[Path, ...] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sizes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config: Path | None = None
    resume: bool = False


def run_training(request: TrainRequest, *, observe: "Observer | None" = None) -> "TrainingResult":
    """Train as `request` asks and return what was measured; the model, the metrics and the curve are in `request.out`.

    Raises InputError, RepoError, CheckpointError, CheckpointMismatchError, DivergedError.
    """
    if request.config is not None and request.sizes:
        given = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(request.sizes))
        raise InputError(f"--config describes the whole model: expected it alone, got it with {given}.")
    # Bad values are told before torch is loaded.
    settings_given = None if request.resume else fresh_settings(request.settings)
    from modelwright.tokenization.byte_tokenizer import ByteTokenizer
    from modelwright.training.data import TextBytes
    from modelwright.training.folder import check_folder
    from modelwright.training.loop import train
    from modelwright.training.state import newest_checkpoint

    check_folder(request.out)
    saved = newest_checkpoint(request.out) if request.resume else None
    source: str | Path
    if saved is not None:
        settings = TrainingSettings.from_dict({**saved.facts.settings, **request.settings})
        config, source = _saved_config(request, saved), saved.folder
        paths = request.text or tuple(Path(path) for path in saved.facts.text_paths)
    else:
        if request.resume and not request.text:
            raise InputError(
                f"--resume: {request.out} holds no checkpoint to go on from; start a training with --text FILE."
            )
        settings = settings_given or fresh_settings(request.settings)
        config, source = _fresh_config(request, settings), request.config or "the options given"
        paths = request.text
    result = train(
        make_model(config, seed=settings.seed, source=source),
        TextBytes(paths),
        settings,
        tokenizer=ByteTokenizer(),
        out=request.out,
        resume=request.resume,
        observe=observe,
    )
    draw_curve(request.out)
    return result


def draw_curve(out: Path) -> None:
    """Draw the loss curve of the training in `out`, where matplotlib is."""
    from modelwright.training.metrics import METRICS_NAME, read_metrics
    from modelwright.training.plot import PLOT_NAME, plot_loss

    if is_matplotlib_available():
        records = read_metrics(out / METRICS_NAME)
        if any(record["kind"] == "train" for record in records):  # a log that was lost is no reason to fail now
            plot_loss(records, out / PLOT_NAME)


def fresh_settings(given: Mapping[str, Any]) -> TrainingSettings:
    """Return the settings of a training that starts, with what was not given."""
    values = dict(given)
    if "steps" not in values and "minutes" not in values:
        values["steps"] = DEFAULT_STEPS
    if "warmup" not in values and "steps" in values:
        # A short run warms up for a tenth of itself.
        values["warmup"] = max(0, min(TrainingSettings.warmup, values["steps"] // 10))
    return TrainingSettings.from_dict(values)


def _fresh_config(request: TrainRequest, settings: TrainingSettings) -> "PretrainedConfig":
    if request.config is not None:
        return config_from_file(request.config)
    return config_from(reformer_config(ReformerSizes(**request.sizes), window=settings.window))


def _saved_config(request: TrainRequest, saved: "Saved") -> "PretrainedConfig":
    """Return the config that the saved training began with; raises InputError for an option that contradicts it."""
    before = saved.facts.model
    now = dict(before)
    if request.config is not None:
        now = config_from_file(request.config).to_dict()
    for name, value in request.sizes.items():
        now.update({key: list(value) if name == "layers" else value for key in SIZE_KEYS[name]})
    found = differences(before, now)
    if found:
        raise InputError(
            f"Resume from {saved.folder}: the model differs from the one that was saved: {'; '.join(found)}. "
            "Leave these options out, or start a new training in another folder."
        )
    return config_from(before)
