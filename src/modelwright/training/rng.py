"""The random streams of a training: a window in which they belong to it, and their state as plain data.

The process's own streams are given back as they were: a training does not reseed its caller.
"""

import contextlib
import io
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from accelerate import Accelerator


def rng_state() -> dict[str, Any]:
    """Return the state of torch's CPU and CUDA streams and of Python's and numpy's, as tensors and plain numbers."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": (str(kind), torch.from_numpy(np.array(keys)), int(position), int(has_gauss), float(gauss)),
    }


def rng_states(accelerator: "Accelerator") -> list[dict[str, Any]]:
    """Return the state of every process of `accelerator`, in the order of their ranks, on each of them."""
    from accelerate.utils import gather_object

    if accelerator.num_processes == 1:
        return [rng_state()]
    # As bytes: torch cannot unpickle a generator's state that another process has sent as an object.
    own = io.BytesIO()
    torch.save(rng_state(), own)
    return [torch.load(io.BytesIO(data), weights_only=True) for data in gather_object([own.getvalue()])]


def set_rng_state(state: dict[str, Any]) -> None:
    """Put every stream back to what `rng_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy(), *rest))


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed every stream from `seed` for the duration of the block, and restore the caller's streams after it."""
    before = rng_state()
    torch.manual_seed(seed % (1 << 63))
    random.seed(seed)
    np.random.seed(seed % (1 << 32))
    try:
        yield
    finally:
        set_rng_state(before)
