"""The optimizer and its learning rate: AdamW that decays matrices only, linear warm-up, cosine decay."""

import math

import torch

from modelwright.core.errors import InputError
from modelwright.training.settings import TrainingSettings


def make_optimizer(model: torch.nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters, in two groups: matrices (decayed) and all others (not).

    Biases, norms and the three-dimensional axial position tables are not pulled towards zero. Raises InputError if
    nothing is trainable.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise InputError(f"{type(model).__name__}: expected parameters to train, found every one of them frozen.")
    groups = [
        {"params": [p for p in trainable if p.ndim == 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim != 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=settings.lr, betas=(settings.beta1, settings.beta2)
    )


def learning_rate(step: int, total: int | None, settings: TrainingSettings) -> float:
    """Return the learning rate of `step` (counted from 0) in a training of `total` steps.

    `total` may be None while it is still unknown, that is during warm-up, which does not depend on it.
    """
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    assert total is not None
    assert step < total, (step, total)
    progress = (step - settings.warmup) / max(1, total - 1 - settings.warmup)
    cosine = (1 + math.cos(math.pi * progress)) / 2
    return settings.lr * (settings.final_lr + (1 - settings.final_lr) * cosine)
