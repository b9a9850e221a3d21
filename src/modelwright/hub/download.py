"""The keywords of `from_pretrained` that are about a repository of the hub, checked, in one object."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from modelwright.core.errors import InputError
from modelwright.core.logging import get_logger

logger = get_logger(__name__)

_PATH = (str, os.PathLike)
_TYPES: dict[str, tuple[type, ...]] = {
    "cache_dir": _PATH,
    "force_download": (bool,),
    "local_files_only": (bool,),
    "token": (str, bool),
    "use_auth_token": (str, bool),
    "revision": (str,),
    "code_revision": (str,),
    "proxies": (dict,),
    "resume_download": (bool,),
    "mirror": (str,),
    "_commit_hash": (str,),
}
_WITHOUT_EFFECT = {
    "resume_download": "a download that was interrupted is always taken up again",
    "mirror": "set the environment variable HF_ENDPOINT to the address of another hub",
}


@dataclass(frozen=True, kw_only=True)
class Download:
    """How to get the files of a hub repository.

    revision: a branch, a tag or a commit. cache_dir: where downloads are kept, None for the client's own place.
    token: an access token; True for the one of `hf auth login`, False for none; None for that one if there is one.
    local_files_only: use what the cache has and ask nobody. force_download: download again what the cache has.
    code_revision: `revision` of custom code that is in a repository of its own.
    commit_hash: the commit that `revision` stood for a moment ago, so that all files of one load are of one commit.
    """

    revision: str = "main"
    cache_dir: str | os.PathLike[str] | None = None
    token: str | bool | None = None
    local_files_only: bool = False
    force_download: bool = False
    code_revision: str | None = None
    commit_hash: str | None = None

    @property
    def cache_folder(self) -> str | None:
        """`cache_dir` as the client takes it."""
        return None if self.cache_dir is None else str(Path(self.cache_dir).expanduser())

    def keywords(self) -> dict[str, Any]:
        """Return the keywords that make an equal object: what an auto class hands on."""
        given = self._given()
        commit_hash = given.pop("commit_hash", None)
        return given if commit_hash is None else {**given, "_commit_hash": commit_hash}

    def say_unused(self, path: str) -> None:
        """Say once for each keyword that it means nothing for a path on this machine, never its value."""
        for name in sorted(self._given().keys() - {"commit_hash", "local_files_only"}):
            logger.warning_once(f"{path}: {name} has no effect: it is about downloads, and this is local.")

    def _given(self) -> dict[str, Any]:
        """Return what differs from the defaults."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}


def take_download(where: str, keywords: Mapping[str, Any]) -> tuple[Download, dict[str, Any]]:
    """Return what the hub `keywords` ask for, and the other keywords.

    Raises InputError for a value of a wrong type, NotImplementedError for proxies.
    """
    given = {name: value for name, value in keywords.items() if name in _TYPES and value is not None}
    rest = {name: value for name, value in keywords.items() if name not in _TYPES}
    for name, value in given.items():
        if not isinstance(value, _TYPES[name]):
            expected = " or ".join("a path" if kind is os.PathLike else kind.__name__ for kind in _TYPES[name])
            raise InputError(f"{where}: expected {name} to be {expected} or None, got {value!r}")
    if "token" in given and "use_auth_token" in given:
        raise InputError(f"{where}: expected token or use_auth_token (its older name), got both; pass token only")
    if given.pop("proxies", None):
        raise NotImplementedError(
            f"{where}: proxies is not possible: the hub's client takes them from the environment; set HTTPS_PROXY "
            "and HTTP_PROXY"
        )
    for name, instead in _WITHOUT_EFFECT.items():
        if given.pop(name, False):
            logger.warning_once(f"{where}: {name} changes nothing: {instead}.")
    if "use_auth_token" in given:
        given["token"] = given.pop("use_auth_token")
    if "_commit_hash" in given:
        given["commit_hash"] = given.pop("_commit_hash")
    if given.get("local_files_only") and given.get("force_download"):
        raise InputError(f"{where}: expected local_files_only or force_download, got both; they contradict each other")
    return Download(**given), rest
