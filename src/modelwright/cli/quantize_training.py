"""Quantization-aware training, for `modelwright quantize --qat`.

The recipe is that of NVIDIA's toolkit and of its example for QDQBERT: calibrate first and keep the ranges as they are,
few epochs, a cosine from a low learning rate down to a hundredth of it, no weight decay. The teacher of `--distill` is
the float model, as in FasterTransformer; neither has dropout then. Sources: Wu et al. 2020 (arXiv 2004.09602),
section 5.2; Hinton et al. 2015.
"""

import copy
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelwright.cli.quantize_task import LEAST_ITEMS, Subject
from modelwright.core.errors import InputError

if TYPE_CHECKING:
    from modelwright.quantization.ptq import Progress
    from modelwright.training.settings import TrainingSettings
    from modelwright.training.tuning import TuningTask

EPOCHS = 2.0
# What BERT is fine-tuned with. Who is close to its teacher already is to move less: all-MiniLM-L6-v2 comes as close in
# 50 steps of 1e-5 as in 100 of 4e-5.
LR, LR_OF_DISTILLING, FINAL_LR = 4e-5, 1e-5, 0.01
BATCH = 16


@dataclass(frozen=True)
class Training:
    """How a quantized model goes on learning: on which file, for how long, from labels or the float model's outputs."""

    train: Path
    epochs: float = EPOCHS
    distill: bool = False
    lr: float = LR
    batch: int = BATCH
    resume: bool = False

    @classmethod
    def of_options(cls, qat: bool, given: Mapping[str, Any]) -> "Training | None":
        """Return what the options ask for, None without --qat; raise InputError for some that do not go together."""
        given = {name: value for name, value in given.items() if value is not None and value is not False}
        if not qat:
            if given:
                raise InputError(f"--{next(iter(given))} is about training: it has no meaning without --qat")
            return None
        if "train" not in given:
            raise InputError("--qat: expected --train FILE, examples to train on in the form of --calib")
        training = cls(**{"lr": LR_OF_DISTILLING if "distill" in given else LR, **given})
        if not 0 < training.epochs < math.inf:
            raise InputError(f"--epochs: expected a number above 0, got {training.epochs:g}")
        _settings(training, 1, 1)  # bad values are told now
        return training


def check_folder_for(training: Training, out: Path) -> None:
    """Raise InputError, before anything is done, if a training cannot write into `out`."""
    from modelwright.training import folder, state

    folder.check_folder(out)
    if not state.has_checkpoints(out):
        folder.check_holds_no_model(out)
        if training.resume:
            raise InputError(f"--resume: {out} holds no checkpoint of a training; leave --resume out to begin one")
    elif not training.resume:
        raise InputError(f"{out} already holds a training: go on with it (--resume) or choose another folder (--out)")


def has_checkpoint(out: Path) -> bool:
    """Tell whether there is a training in `out` to go on with."""
    from modelwright.training import state

    return state.has_checkpoints(out)


def tuning_task(
    subject: Subject, training: Training, items: Sequence[Any], teacher: Any, held_out: Any
) -> "TuningTask":
    """Return the task of learning `items`, those of the file to train on, but for those that judge the model.

    teacher: the float model. held_out: what is measured after each epoch. Raises InputError if too few are left, and
    for items without labels if nothing is to be distilled.
    """
    from modelwright.training.distillation import Teacher
    from modelwright.training.tuning import TuningTask

    kind = subject.kind
    judging = {kind.group(item) for item in subject.held_out.items}
    kept = [item for item in items if kind.group(item) not in judging]
    if len(kept) < LEAST_ITEMS:
        raise InputError(
            f"--train: {training.train}: expected at least {LEAST_ITEMS} {kind.item_name} beside those that judge the "
            f"model (a quarter of --calib), found {len(kept)} of {len(items)}"
        )
    return TuningTask(
        kind,
        kept,
        held_out,
        path=training.train,
        seed=0,
        batch=training.batch,
        teacher=Teacher(teacher) if training.distill else None,
    )


def train_quantized(
    subject: Subject, training: Training, task: "TuningTask", out: Path, progress: "Progress"
) -> dict[str, Any]:
    """Train the quantized model of `subject` in place, and return the part of the report that says how.

    A training that raises the held-out loss leaves the model as it was. Its checkpoints, its record and its loss curve
    go to `out`. Raises as `train_task` does.
    """
    import torch

    from modelwright.cli.run_training import draw_curve
    from modelwright.training.loop import train_task

    def observe(record: Mapping[str, Any]) -> None:
        if record["kind"] == "train":
            progress(f"training, loss {record['loss']:.4f}", record["step"], record["total_steps"])

    steps = task.steps(training.epochs)
    settings = _settings(training, steps, min(steps, task.steps(1)))
    calibrated = copy.deepcopy(subject.model.state_dict())
    loss_before = task.evaluate(subject.model, torch.device("cpu"), last=False)["loss"]
    result = train_task(
        subject.model, task, settings, tokenizer=subject.tokenizer, out=out, resume=training.resume, observe=observe
    )
    subject.model.cpu().eval()
    draw_curve(out)
    loss = result.scores["loss"]
    if loss > loss_before:
        subject.model.load_state_dict(calibrated)
    return {
        "file": str(training.train),
        "items": len(task.items),
        "rows": len(task.encoded.rows),
        "epochs": training.epochs,
        "steps": steps,
        "batch": training.batch,
        "lr": training.lr,
        "distill": training.distill,
        "seconds": result.seconds,
        "held_out_loss": {"before": loss_before, "after": loss},
        "kept": "calibrated" if loss > loss_before else "trained",
    }


def _settings(training: Training, steps: int, steps_of_epoch: int) -> "TrainingSettings":
    from modelwright.training.settings import TrainingSettings

    return TrainingSettings(
        steps=steps,
        batch=training.batch,
        lr=training.lr,
        final_lr=FINAL_LR,
        warmup=min(10, steps // 10),
        weight_decay=0.0,
        beta2=0.999,
        eval_every=steps_of_epoch,
        save_every=steps_of_epoch,
        keep=1,
    )


def figures_before(subject: Subject, judge: Any, target: str) -> dict[str, Any]:
    """Return what is measured of the calibrated model in ONNX Runtime, before it is trained."""
    from modelwright.export.onnx import export_onnx
    from modelwright.export.runtime import OnnxModel

    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(subject.model, Path(folder) / "model.onnx", target=target)
        figures, holds = judge.figures(OnnxModel(path, subject.model.config))
    return {**figures, "holds": holds}
