"""Checkpoints of a training: written whole or not at all, and resumed exactly.

    OUT/checkpoints/step-00000200/   config.json, weights, tokenizer    what `save_pretrained` writes
                                     training_state.pt                  optimizer, random streams of every process
                                     training.json                      step, settings, text, file sizes and hashes

A checkpoint is written into a hidden sibling folder, brought to disk and renamed: a folder that has its final name is
complete, whenever the process was killed. The file hashes tell later damage from that.
"""

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, Protocol

import torch

from modelwright.checkpoint.manifest import hash_file
from modelwright.core.errors import CheckpointError, InputError
from modelwright.core.logging import get_logger
from modelwright.training.settings import FREE_ON_RESUME, differences

logger = get_logger(__name__)

CHECKPOINTS = "checkpoints"
FACTS_NAME = "training.json"
STATE_NAME = "training_state.pt"
_FORMAT = 1
_NAME = re.compile(r"step-(\d{8,})")
_LEFTOVER = re.compile(r"\.(new|old)-step-\d{8,}")


class Saveable(Protocol):
    """A model or a tokenizer: what can write itself into a folder."""

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> Any:
        """Write into the folder."""


@dataclasses.dataclass(frozen=True)
class Position:
    """How far a training is: steps done, steps in all (None while --minutes has not fixed them), seconds spent."""

    step: int
    total_steps: int | None
    seconds: float


@dataclasses.dataclass(frozen=True)
class Facts:
    """What must be the same when a training goes on: its settings, text, model configuration and process count.

    torch and threads are recorded too: another value makes other roundings, so it is warned about, not refused.
    text_paths tell a resume where the text was; it may have moved.
    """

    settings: dict[str, Any]
    text: dict[str, Any]
    model: dict[str, Any]
    processes: int
    torch: str
    threads: int
    text_paths: list[str]

    def check_continues(self, before: "Facts", folder: Path) -> None:
        """Raise InputError that names every difference to the facts `before` of the checkpoint in `folder`."""
        found = differences(before.settings, self.settings, free=FREE_ON_RESUME)
        found += [f"text {line}" for line in differences(before.text, self.text)]
        found += [f"model config {line}" for line in differences(before.model, self.model)]
        if before.processes != self.processes:
            found.append(f"processes was {before.processes}, now {self.processes}")
        if found:
            raise InputError(
                f"Resume from {folder}: the training differs from the one that was saved: {'; '.join(found)}. "
                "Give the saved values, or start a new training in another folder."
            )
        if (before.torch, before.threads) != (self.torch, self.threads):
            logger.warning(
                "Resume from %s: saved with torch %s on %d threads, now torch %s on %d threads; "
                "the training goes on, but not bit for bit.",
                *(folder, before.torch, before.threads, self.torch, self.threads),
            )


@dataclasses.dataclass(frozen=True)
class Saved:
    """A complete checkpoint on disk."""

    folder: Path
    position: Position
    facts: Facts

    def state(self) -> dict[str, Any]:
        """Return {"optimizer": its state dict, "rng": one state per process}; tensors on the CPU."""
        loaded: dict[str, Any] = torch.load(self.folder / STATE_NAME, map_location="cpu", weights_only=True)
        return loaded

    def load_weights(self, model: torch.nn.Module) -> None:
        """Copy the saved weights into `model`; a second copy of them is in memory meanwhile."""
        loaded = type(model).from_pretrained(self.folder)  # type: ignore[attr-defined]
        model.load_state_dict(loaded.state_dict())


def save_training(
    out: Path,
    *,
    model: Saveable,
    tokenizer: Saveable,
    state: dict[str, Any],
    position: Position,
    facts: Facts,
    max_shard_size: int | str,
    keep: int,
) -> Path:
    """Write one checkpoint below `out` and return its folder.

    The newest `keep` sound checkpoints up to it stay. Older ones are removed, and so are those of later steps: a
    training that went on from an earlier checkpoint has given them up.
    """
    checkpoints = out / CHECKPOINTS
    checkpoints.mkdir(parents=True, exist_ok=True)
    for leftover in checkpoints.iterdir():
        if _LEFTOVER.fullmatch(leftover.name) and leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
    final = checkpoints / f"step-{position.step:08d}"
    temporary = checkpoints / f".new-{final.name}"
    temporary.mkdir()
    model.save_pretrained(temporary, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(temporary)
    torch.save(state, temporary / STATE_NAME)
    description = {
        "format": _FORMAT,
        "position": dataclasses.asdict(position),
        "facts": dataclasses.asdict(facts),
        "files": {path.name: _describe(path) for path in sorted(temporary.iterdir())},
    }
    (temporary / FACTS_NAME).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    for path in [*temporary.iterdir(), temporary]:
        _to_disk(path)
    if final.exists():  # damaged, or of the same step: the run that is here now has just computed it anew
        _remove(final)
    temporary.rename(final)
    _to_disk(checkpoints)
    _remove_others(out, final, keep)
    return final


def has_checkpoints(out: Path) -> bool:
    """Tell whether `out` holds any checkpoint of a training, sound or not."""
    return bool(_step_folders(out))


def newest_checkpoint(out: Path) -> Saved | None:
    """Return the newest complete checkpoint below `out`, or None if no training was ever saved there.

    A damaged one is passed over with a warning that says what is wrong. Raises CheckpointError if all are damaged.
    """
    folders = _step_folders(out)
    problems = []
    for folder in reversed(folders):
        try:
            return _open(folder)
        except CheckpointError as error:
            problems.append(str(error))
            logger.warning("%s Passed over.", error)
    if problems:
        raise CheckpointError(f"Resume from {out}: none of its {len(folders)} checkpoints is sound. {problems[0]}")
    return None


def _open(folder: Path) -> Saved:
    path = folder / FACTS_NAME
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        saved = Saved(folder, Position(**description["position"]), Facts(**description["facts"]))
        files, version = description["files"], description["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"Training checkpoint {folder}: {FACTS_NAME} cannot be read ({error}).") from error
    if version != _FORMAT:
        raise CheckpointError(f"Training checkpoint {folder}: expected format {_FORMAT}, found {version}.")
    for name, expected in files.items():
        found = _describe(folder / name) if (folder / name).is_file() else "no such file"
        if found != expected:
            raise CheckpointError(f"Training checkpoint {folder}: {name}: expected {expected}, found {found}.")
    return saved


def _step_folders(out: Path) -> list[Path]:
    """Return the checkpoint folders below `out`, the oldest first."""
    folders = (out / CHECKPOINTS).glob("step-*")
    return sorted((f for f in folders if _NAME.fullmatch(f.name)), key=lambda f: int(f.name.removeprefix("step-")))


def _remove_others(out: Path, newest: Path, keep: int) -> None:
    folders = _step_folders(out)
    current = folders.index(newest)
    for abandoned in folders[current + 1 :]:
        _remove(abandoned)
    sound = 1
    for folder in reversed(folders[:current]):
        if sound == keep:
            _remove(folder)
        elif _is_sound(folder):
            sound += 1


def _is_sound(folder: Path) -> bool:
    try:
        _open(folder)
    except CheckpointError:
        return False
    return True


def _describe(path: Path) -> dict[str, Any]:
    record = hash_file(path)
    return {"bytes": record.size, "sha256": record.sha256}


def _remove(folder: Path) -> None:
    # Renamed first: a kill in the middle of the removal leaves no half folder under a checkpoint's name.
    hidden = folder.with_name(f".old-{folder.name}")
    folder.rename(hidden)
    shutil.rmtree(hidden)


def _to_disk(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot open a folder, and does not need to
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
