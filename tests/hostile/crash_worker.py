"""Runs saves that are stopped half-way, and checks what is left. Called by test_crash_save.py in a process of its own.

    python crash_worker.py WORKDIR TRANSITION

It forks a child for every fault. Below Python, for it is Rust that writes safetensors: a kill before the n-th system
call that changes files, for each n until the save gets through, and each of these calls failing (ENOSPC if it takes
space, else EIO); a limit on the size of files, once as an error (EFBIG), once as a signal that kills in the middle of a
write. Where the system lets nobody filter its calls: kills before the n-th file operation of Python, and half-way
through it.

What is left is read by us and, with --upstream, by transformers, in every state that occurs; without, by a few lines
that look for files as transformers does. Prints one JSON object.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import syscall_faults
import torch
from safetensors.torch import load_file

from modelwright.checkpoint import fsops
from modelwright.checkpoint.open import open_checkpoint
from modelwright.checkpoint.save import save_checkpoint
from modelwright.checkpoint.verify import verify
from modelwright.core.errors import CheckpointError
from modelwright.hub.local import LocalRepo

KILLED, FAILED, OTHER_WAY = 42, 43, 44
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


def transformers_content(folder: Path) -> dict[str, torch.Tensor] | None:
    """What transformers reads."""
    if not folder.exists():
        return None  # it would look for a repository of that name
    import transformers

    class Net(transformers.PreTrainedModel):
        config_class = transformers.PretrainedConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.layer = torch.nn.ModuleList(torch.nn.Linear(20, 20, bias=False) for _ in range(3))

        def _init_weights(self, module: torch.nn.Module) -> None:
            """Leave what is missing as it is: it must not come to that."""

    try:
        net, info = Net.from_pretrained(folder, config=transformers.PretrainedConfig(), output_loading_info=True)
    except OSError as error:
        if "no file named" in str(error) or "Incorrect path" in str(error):
            return None
        raise
    assert not any(info.values()), info
    return dict(net.state_dict())


def state_of(folder: Path) -> str:
    """Tell states of a folder apart."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        if path.is_file():
            digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def child(work: Callable[[], int]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = work()
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
    def __init__(self, workdir: Path, name: str, upstream: bool) -> None:
        self.old, self.new, self.method, self.changes = TRANSITIONS[name]
        self.folder = workdir / "ckpt"
        self.template = workdir / "template"
        self.upstream = upstream
        self.seen: set[str] = set()
        self.tidy = True  # a full disk is no reason to leave anything behind; a call that removes may have failed
        self.result: dict[str, Any] = {
            "old": 0,
            "new": 0,
            "kills": 0,
            "errors": 0,
            "size_limits": 0,
            "states_upstream": 0,
        }
        if self.old is not None:
            save_checkpoint(weights(1), self.template, extra_files=texts(1, self.changes), **self.old)
            (self.template / "notes.txt").write_text("mine")
            save_checkpoint(weights(9), self.template, variant="other")
            if self.method == "journal":
                (self.template / "runs").mkdir()
                (self.template / "runs" / "log").write_text("log")

    def save(self) -> int:
        try:
            report = save_checkpoint(weights(2), self.folder, extra_files=texts(2, self.changes), **self.new)
        except CheckpointError as error:
            return FAILED if "still holds what it held" in str(error) or "is complete" in str(error) else 98
        return 0 if report.method == self.method else OTHER_WAY

    def attempt(self, run: Callable[[Callable[[], int]], int]) -> int:
        for path in self.folder.parent.iterdir():
            if path != self.template:
                shutil.rmtree(path)
        if self.old is not None:
            shutil.copytree(self.template, self.folder)
        code = run(self.save)
        assert code in (0, FAILED, OTHER_WAY, KILLED) or code < 0, code
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
            self.check_upstream(found)
        if code == FAILED and self.tidy:
            strays = [path.name for path in self.folder.parent.iterdir() if path not in (self.folder, self.template)]
            assert not strays, strays
        if self.old is not None:
            assert (self.folder / "notes.txt").read_text() == "mine"
            with open_checkpoint(LocalRepo(self.folder), variant="other") as other:
                assert torch.equal(other.read("layer.0.weight"), weights(9)["layer.0.weight"])
            report = verify(self.folder)
            assert report.ok, report
        # The next save finishes or clears away what the dead one left.
        save_checkpoint(weights(3), self.folder, extra_files=texts(3, True))
        assert same(upstream_content(self.folder) or {}, weights(3))
        report = verify(self.folder, strict=True)
        assert report.ok and not report.findings, report
        hidden = [path.name for path in self.folder.iterdir() if path.name.startswith(".")]
        assert not hidden, hidden

    def check_upstream(self, found: tuple[dict[str, torch.Tensor], list[str]] | None) -> None:
        readers: list[Callable[[Path], dict[str, torch.Tensor] | None]] = [upstream_content]
        state = state_of(self.folder)
        if self.upstream and state not in self.seen:
            self.seen.add(state)
            self.result["states_upstream"] += 1
            readers.append(transformers_content)
        for reader in readers:
            theirs = reader(self.folder)
            assert (theirs is None) == (found is None), reader
            assert theirs is None or (found is not None and same(theirs, found[0])), reader

    def below_python(self) -> None:
        calls: set[str] = set()

        def fault(number: int, kill: bool, work: Callable[[], int]) -> int:
            outcome = syscall_faults.run(work, number, kill=kill)
            calls.update(outcome.calls)
            reached.append(len(outcome.calls) >= number)
            self.tidy = reached[-1] and outcome.calls[number - 1] in syscall_faults.TAKES_SPACE
            return outcome.code

        for kill in (True, False):
            number, reached = 0, [True]
            while reached[-1]:
                number += 1
                code = self.attempt(partial(fault, number, kill))
                assert (code == -signal.SIGKILL) == (kill and reached[-1]), (code, number)
            self.result["kills" if kill else "errors"] = number - 1
        self.tidy = True
        self.result["calls"] = sorted(calls)

    def in_python(self) -> None:
        def fault(number: int, torn: bool, work: Callable[[], int]) -> int:
            def stopped() -> int:
                kill_before(number, torn)
                return work()

            return child(stopped)

        number = 1
        while self.attempt(partial(fault, number, False)) == KILLED:
            assert self.attempt(partial(fault, number, True)) == KILLED
            number += 1
        self.result["kills"] = 2 * (number - 1)

    def size_limits(self) -> None:
        def fault(limit: int, kill: bool, work: Callable[[], int]) -> int:
            def limited() -> int:
                limit_size(limit, kill)
                return work()

            return child(limited)

        sizes = {path.stat().st_size for path in self.folder.iterdir()}  # as a later save left them, near enough
        assert self.attempt(child) == 0
        sizes |= {path.stat().st_size for path in self.folder.iterdir() if path.is_file()}
        limits = sorted({1, *(size - 1 for size in sizes), *(size // 2 for size in sizes)})
        for limit in limits:
            for kill in (False, True):
                code = self.attempt(partial(fault, limit, kill))
                assert code in (0, FAILED, -signal.SIGXFSZ), code
                self.result["size_limits"] += code != 0

    def run(self) -> dict[str, Any]:
        (self.below_python if syscall_faults.available() else self.in_python)()
        self.size_limits()
        return self.result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir", type=Path)
    parser.add_argument("transition", choices=TRANSITIONS)
    parser.add_argument("--upstream", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(Run(options.workdir, options.transition, options.upstream).run()))
