"""Runs saves that are stopped half-way, and checks what is left. Called by test_crash_save.py in a process of its own.

    python crash_worker.py WORKDIR TRANSITION

It forks a child for every fault: a kill before the n-th file operation (for each n until the save gets through), a kill
in the middle of a write, and a limit on the file size, once as an error (EFBIG) and once as a signal that kills below
Python, in the middle of the library's own writing. Prints one JSON object.
"""

import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from modelwright.checkpoint import fsops
from modelwright.checkpoint.open import open_checkpoint
from modelwright.checkpoint.save import save_checkpoint
from modelwright.checkpoint.verify import verify
from modelwright.core.errors import CheckpointError
from modelwright.hub.local import LocalRepo

KILLED, FAILED = 42, 43
SINGLE: dict[str, Any] = {}
TWO: dict[str, Any] = {"max_shard_size": 3500}
THREE: dict[str, Any] = {"max_shard_size": 1700}
BIN: dict[str, Any] = {"safe": False}
BINS: dict[str, Any] = {"safe": False, "max_shard_size": 3500}

# name: (how the old one was saved, or None, how the new one is, how it is committed, does the config change)
TRANSITIONS: dict[str, tuple[dict[str, Any] | None, dict[str, Any], str, bool]] = {
    "nothing-single": (None, SINGLE, "new folder", True),
    "nothing-sharded": (None, TWO, "new folder", True),
    "single-single": (SINGLE, SINGLE, "in order", False),
    "single-sharded": (SINGLE, TWO, "in order", False),
    "sharded-single": (TWO, SINGLE, "in order", False),
    "sharded-other": (TWO, THREE, "in order", False),
    "sharded-same": (TWO, TWO, "exchange", False),
    "single-bin": (SINGLE, BIN, "in order", False),
    "bins-single": (BINS, SINGLE, "in order", False),
    "bins-bins": (BINS, BINS, "exchange", False),
    "config-single": (SINGLE, SINGLE, "exchange", True),
    "config-sharded": (TWO, TWO, "exchange", True),
    "journal-same": (TWO, TWO, "journal", False),
    "journal-config": (SINGLE, THREE, "journal", True),
    "journal-shrink": (THREE, SINGLE, "journal", True),
}


def weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"layer.{i}.weight": torch.randn(20, 20, generator=generator) for i in range(3)}


def texts(seed: int, changes: bool) -> dict[str, str]:
    return {name: f'{{"of": "{name}", "seed": {seed if changes else 0}}}\n' for name in ("config.json", "more.json")}


def content(folder: Path) -> tuple[dict[str, torch.Tensor], list[str]] | None:
    """What we load, or None if there is no checkpoint."""
    if not folder.exists():
        return None
    repo = LocalRepo(folder)
    try:
        with open_checkpoint(repo) as checkpoint:
            tensors = {name: checkpoint.read(name).clone() for name in checkpoint.infos}
    except CheckpointError as error:
        if "found no weights" in str(error):
            return None
        raise
    return tensors, [repo.path(name).read_text() for name in ("config.json", "more.json")]


def upstream_content(folder: Path) -> dict[str, torch.Tensor] | None:
    """What a loader reads that knows nothing of us: the single file, else what the index lists, else .bin likewise."""
    for single, load in (
        ("model.safetensors", load_file),
        ("pytorch_model.bin", lambda path: torch.load(path, weights_only=True)),
    ):
        if (folder / single).exists():
            return load(folder / single)
        index = folder / f"{single}.index.json"
        if index.exists():
            weight_map = json.loads(index.read_text())["weight_map"]
            shards = {name: load(folder / name) for name in set(weight_map.values())}
            return {key: shards[name][key] for key, name in weight_map.items()}
    return None


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            work()
            code = 0
        except CheckpointError as error:
            code = FAILED if "still holds what it held" in str(error) or "is complete" in str(error) else 98
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def kill_before(number: int, torn: bool) -> None:
    """Make the `number`-th file operation the last: not done at all, or, if it writes, half done."""
    count = 0

    def counted(operation: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                if torn and operation.__name__ == "write_file":
                    args[0].write_bytes(args[1][: len(args[1]) // 2])
                os._exit(KILLED)
            return operation(*args)

        return wrapper

    for name in fsops.OPERATIONS:
        setattr(fsops, name, counted(getattr(fsops, name)))


def limit_size(limit: int, kill: bool) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kill else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


class Run:
    def __init__(self, workdir: Path, name: str) -> None:
        self.old, self.new, self.method, self.changes = TRANSITIONS[name]
        self.folder = workdir / "ckpt"
        self.template = workdir / "template"
        self.result = {"old": 0, "new": 0, "kills": 0, "size_limits": 0}
        if self.old is not None:
            save_checkpoint(weights(1), self.template, extra_files=texts(1, self.changes), **self.old)
            (self.template / "notes.txt").write_text("mine")
            save_checkpoint(weights(9), self.template, variant="other")
            if self.method == "journal":
                (self.template / "runs").mkdir()
                (self.template / "runs" / "log").write_text("log")

    def save(self) -> None:
        report = save_checkpoint(weights(2), self.folder, extra_files=texts(2, self.changes), **self.new)
        assert report.method == self.method, report

    def attempt(self, fault: Callable[[], None]) -> int:
        for path in self.folder.parent.iterdir():
            if path != self.template:
                shutil.rmtree(path)
        if self.old is not None:
            shutil.copytree(self.template, self.folder)

        def work() -> None:
            fault()
            self.save()

        code = child(work)
        assert code != 99 and code != 98, code
        self.check(code)
        return code

    def check(self, code: int) -> None:
        found = content(self.folder)
        expected_old = None if self.old is None else (weights(1), list(texts(1, self.changes).values()))
        expected_new = (weights(2), list(texts(2, self.changes).values()))
        is_new = found is not None and same(found[0], expected_new[0])
        if is_new:
            assert found is not None and found[1] == expected_new[1], "new weights with an old config"
        elif expected_old is None:
            assert found is None
        else:
            assert found is not None and same(found[0], expected_old[0]), "neither old nor new"
            assert found[1] == expected_old[1], "old weights with a new config"
        assert code != 0 or is_new
        self.result["new" if is_new else "old"] += 1
        if self.method != "journal":
            upstream = upstream_content(self.folder)
            assert (upstream is None) == (found is None)
            assert upstream is None or (found is not None and same(upstream, found[0]))
        if self.old is not None:
            assert (self.folder / "notes.txt").read_text() == "mine"
            with open_checkpoint(LocalRepo(self.folder), variant="other") as other:
                assert torch.equal(other.read("layer.0.weight"), weights(9)["layer.0.weight"])
            report = verify(self.folder)
            assert report.ok, report
        if code == FAILED:
            strays = [path.name for path in self.folder.parent.iterdir() if path not in (self.folder, self.template)]
            assert not strays, strays
        # The next save finishes or clears away what the dead one left.
        save_checkpoint(weights(3), self.folder, extra_files=texts(3, True))
        assert same(upstream_content(self.folder) or {}, weights(3))
        report = verify(self.folder, strict=True)
        assert report.ok and not report.findings, report
        hidden = [path.name for path in self.folder.iterdir() if path.name.startswith(".")]
        assert not hidden, hidden

    def run(self) -> dict[str, int]:
        number = 1
        while self.attempt(partial(kill_before, number, torn=False)) == KILLED:
            assert self.attempt(partial(kill_before, number, torn=True)) == KILLED
            number += 1
        self.result["kills"] = 2 * (number - 1)
        sizes = {path.stat().st_size for path in self.folder.iterdir()}  # as a later save left them, near enough
        self.attempt(lambda: None)
        sizes |= {path.stat().st_size for path in self.folder.iterdir() if path.is_file()}
        limits = sorted({1, *(size - 1 for size in sizes), *(size // 2 for size in sizes)})
        for limit in limits:
            for kill in (False, True):
                code = self.attempt(partial(limit_size, limit, kill))
                assert code in (0, FAILED, -signal.SIGXFSZ), code
                self.result["size_limits"] += code != 0
        return self.result


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(Run(Path(sys.argv[1]), sys.argv[2]).run()))
