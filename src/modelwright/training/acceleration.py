"""accelerate around one training: device placement, mixed precision and gradient accumulation, undone at the end."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from modelwright.core.errors import InputError
from modelwright.training.settings import TrainingSettings

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(settings: TrainingSettings) -> "Accelerator":
    """Return the Accelerator that `settings` ask for.

    Raises InputError if this process holds one of another precision or device already: accelerate keeps one in each.
    """
    from accelerate import Accelerator

    mixed_precision = "bf16" if settings.precision == "bf16" else "no"
    try:
        return Accelerator(
            mixed_precision=mixed_precision,
            gradient_accumulation_steps=settings.accumulate,
            cpu=settings.device == "cpu",
        )
    except ValueError as error:
        raise InputError(
            f"accelerate refused precision={settings.precision!r} on device={settings.device!r} "
            f"(--precision, --device): {error}"
        ) from error


@contextlib.contextmanager
def accelerated(
    settings: TrainingSettings, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[tuple["Accelerator", torch.nn.Module, torch.optim.Optimizer]]:
    """Yield (accelerator, prepared model, prepared optimizer); afterwards `model` is an ordinary module again.

    accelerate replaces the model's `forward` for mixed precision and marks the model as prepared, and it keeps the
    precision in a state of the process; each of these would reach into the next training if it stayed.
    """
    from accelerate.state import AcceleratorState, GradientState

    ours = not AcceleratorState._shared_state  # an Accelerator that the caller made stays as it is
    gradients_before = dict(GradientState._shared_state)  # how many steps it accumulates, among others
    accelerator = make_accelerator(settings)
    try:
        prepared_model, prepared_optimizer = accelerator.prepare(model, optimizer)
        yield accelerator, prepared_model, prepared_optimizer
    finally:
        accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        for name in ("_is_accelerate_prepared", "_original_forward", "forward"):
            vars(model).pop(name, None)
        accelerator.free_memory()
        if ours:
            AcceleratorState._reset_state()
        GradientState._shared_state.clear()
        GradientState._shared_state.update(gradients_before)
