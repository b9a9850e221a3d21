"""Checkpoints that bring their own code: refused, or run when the user says trust_remote_code=True.

    auto_map --> files (module and its relative imports) --> hash --> cache by hash --> import

Nobody is asked at run time. All modules that one auto_map names are one unit, so that a model and its config share
their classes; `model.load_report.code_sha256` says which code ran.
"""

import importlib
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelwright.config.json_file import write_bytes
from modelwright.core.errors import ConfigError, InputError, MissingPackageError, RepoError, nearest
from modelwright.core.logging import get_logger
from modelwright.hub.custom_code import CODE_PACKAGE, AutoClassMixin, closure, code_hash, hash_of_class, refuse_upstream
from modelwright.hub.download import Download
from modelwright.hub.open import open_repo

logger = get_logger(__name__)


@dataclass(frozen=True)
class Origin:
    """The checkpoint that an auto class was asked for: a folder or hub repository, and where and how to read it."""

    place: str | os.PathLike[str]
    subfolder: str
    download: Download

    def code_from(self, repo_name: str) -> "Origin":
        """Return where the code of `repo_name` is, "" for this repository, in which code_revision is optional."""
        revision = self.download.code_revision
        if not repo_name and revision is None:
            return self
        download = replace(self.download, revision=revision or "main", commit_hash=None)
        return replace(self, download=download) if not repo_name else Origin(repo_name, "", download)


def find_custom_class(
    owner: str,
    origin: Origin,
    files_say: Mapping[str, Any],
    trust: bool | None,
    *,
    known: bool,
    use_fast: bool = True,
) -> Any:
    """Return the class that a checkpoint brings for the auto class `owner`, None if it is ours that is to be used.

    `files_say` is the content of its config, whose "auto_map" names such classes; `trust` is the caller's
    trust_remote_code. Without it, raises InputError unless there is a `known` class of ours. use_fast: of two
    tokenizers, take the fast one.
    """
    if not isinstance(trust, bool | None):
        raise InputError(f"{owner}: expected trust_remote_code to be True, False or None, got {trust!r}")
    auto_map = files_say.get("auto_map")
    if not auto_map:
        return None
    if not isinstance(auto_map, Mapping):
        raise ConfigError(f"{origin.place}: expected auto_map to be an object of auto classes, found {auto_map!r}")
    if not trust:
        if known:
            return None
        raise InputError(
            f"{owner}: {origin.place} brings its own code ({auto_map!r}), which is not run. Read it; if you trust it, "
            f"pass trust_remote_code=True, or import the class yourself and call {owner}.register()"
        )
    reference = _choose(auto_map.get(owner), use_fast)
    if reference is None:
        if known:
            return None
        raise ConfigError(
            f"{origin.place}: its code has classes for {', '.join(sorted(auto_map))}, none for {owner}."
            f"{nearest(owner, auto_map)}"
        )
    found = _load(origin, reference, auto_map)
    # A copy that is saved elsewhere takes its code along, and so does its config.
    _register(found, owner)
    if "AutoConfig" in auto_map:
        _register(getattr(found, "config_class", None), "AutoConfig")
    return found


def _register(cls: Any, auto_class: str) -> None:
    if isinstance(cls, type) and issubclass(cls, AutoClassMixin) and hash_of_class(cls) is not None:
        cls.register_for_auto_class(auto_class)


def _choose(reference: Any, use_fast: bool) -> str | None:
    """Return the reference; a tokenizer has a pair of them, slow and fast, either of which may be None."""
    if isinstance(reference, list):
        present = [each for each in (reversed(reference) if use_fast else reference) if each]
        return present[0] if present else None
    return None if reference is None else str(reference)


def _load(origin: Origin, reference: str, auto_map: Mapping[str, Any]) -> Any:
    repo_name, module, name = _split(origin, reference)
    every = [each for value in auto_map.values() for each in (value if isinstance(value, list) else [value]) if each]
    parts = [_split(origin, each) for each in every]
    where = origin.code_from(repo_name)
    repo = open_repo(where.place, subfolder=where.subfolder, download=where.download)
    files = closure(
        str(repo),
        [each for of, each, _ in parts if of == repo_name],
        lambda file: repo.path(file, contained=True).read_bytes(),
    )
    refuse_upstream(str(repo), files)
    digest = code_hash(files)
    logger.info("%s: runs its code %s, SHA-256 %s", repo, ", ".join(sorted(files)), digest)
    folder = _store(files, digest)
    try:
        loaded = importlib.import_module(f"{CODE_PACKAGE}.{folder.name}.{module}")
    except ImportError as error:
        raise MissingPackageError(f"{repo}: {module}.py cannot be imported: {error}. Install what it needs.") from error
    try:
        return getattr(loaded, name)
    except AttributeError:
        raise ConfigError(f"{repo}: auto_map names {reference!r}, but {module}.py has no {name!r}.") from None


def _split(origin: Origin, reference: Any) -> tuple[str, str, str]:
    """Return repository ("" for the checkpoint's own), module and class of "repository--module.Class"."""
    repo_name, _, rest = str(reference).rpartition("--")
    module, _, name = rest.partition(".")
    if not module.isidentifier() or not name.isidentifier():
        raise ConfigError(
            f"{origin.place}: expected auto_map to name 'module.Class' or 'repository--module.Class', found "
            f"{reference!r}"
        )
    return ("" if repo_name == str(origin.place) else repo_name), module, name


def _store(files: Mapping[str, bytes], digest: str) -> Path:
    """Write the files into the folder of their hash, unless they are there, and return it."""
    from modelwright.models.auto.custom_modules import CACHE

    folder = CACHE / f"h{digest}"
    try:
        if not folder.is_dir():
            stage = CACHE / f".{folder.name}.{uuid.uuid4().hex}"
            stage.mkdir(parents=True)
            for name, data in files.items():
                (stage / name).write_bytes(data)
            try:
                stage.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster
                    raise
        for name, data in files.items():
            if not (folder / name).is_file() or (folder / name).read_bytes() != data:
                write_bytes(folder / name, data)
    except OSError as error:
        raise RepoError(f"{folder}: the code cannot be written there: {error}. Set HF_MODULES_CACHE.") from error
    importlib.invalidate_caches()
    return folder
