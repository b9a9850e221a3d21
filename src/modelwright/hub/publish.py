"""From a folder to a repository of the hub: what was saved becomes one commit.

A commit replaces a checkpoint as a save does: weights files of the repository that the new ones replace go in the same
commit, so that it holds the old or the new checkpoint, never a mixture.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from modelwright.core.errors import HubError, HubOfflineError, InputError, reject_unknown
from modelwright.core.logging import get_logger
from modelwright.hub.failures import LOG_IN, client_errors
from modelwright.hub.names import LOCK_NAME

logger = get_logger(__name__)

_CARD_NAME = "README.md"
_LIBRARY = "modelwright"
_KEYWORDS = (
    "repo_id", "commit_message", "commit_description", "private", "token", "create_pr", "revision", "tags",
    "use_auth_token",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Push:
    """Where to and how: the repository, made if it is missing (`private` then says who may see it), and the commit.

    `revision` is a branch, made if it is missing. `create_pr` asks for the commit as a pull request. `tags` go into the
    model card.
    """

    repo_id: str
    commit_message: str
    commit_description: str | None = None
    private: bool | None = None
    token: str | bool | None = None
    create_pr: bool = False
    revision: str | None = None
    tags: tuple[str, ...] = ()


def take_push(
    obj: Any, save_directory: str | os.PathLike[str], push_to_hub: bool, keywords: Mapping[str, Any]
) -> Push | None:
    """Return what the keywords of `obj.save_pretrained` ask for, None without `push_to_hub`.

    `repo_id` is by default the name of the folder. Raises UnknownArgumentError, and InputError for both names of the
    token; says once that a keyword has no effect.
    """
    where = f"{type(obj).__name__}.save_pretrained"
    own = signature(type(obj).save_pretrained).parameters.values()
    named = [each.name for each in own if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    reject_unknown(where, keywords, (*_KEYWORDS, *named[1:]))
    given = {name: value for name, value in keywords.items() if value is not None}
    if not push_to_hub:
        for name in given:
            logger.warning_once(f"{where}: {name} has no effect without push_to_hub.")
        return None
    old_token = given.pop("use_auth_token", None)
    if old_token is not None and given.setdefault("token", old_token) != old_token:
        raise InputError(f"{where}: expected token or use_auth_token (its older name), got both; pass token only")
    given.setdefault("repo_id", Path(save_directory).expanduser().resolve().name)
    given.setdefault("commit_message", f"Upload {type(obj).__name__}")
    tags = given.pop("tags", ())
    of_model = getattr(obj, "model_tags", None) or ()
    given["tags"] = tuple(dict.fromkeys([*of_model, *([tags] if isinstance(tags, str) else tags)]))
    return Push(**given)


class PushToHubMixin:
    """`push_to_hub`, for everything that has a `save_pretrained`."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        use_temp_dir: bool | None = None,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        create_pr: bool = False,
        revision: str | None = None,
        tags: str | Sequence[str] | None = None,
        **save_keywords: Any,
    ) -> Any:
        """Save, and upload that as one commit of a hub repository, which is made if it is missing.

        private: who may see a new repository. revision: a branch, made if it is missing. create_pr: ask for the commit
        as a pull request. tags: added to the model card. Other keywords go to `save_pretrained`.
        Returns the client's CommitInfo. Raises HubError (no access, offline), UnknownArgumentError.
        """
        if use_temp_dir is False:
            raise InputError(
                f"{type(self).__name__}.push_to_hub: use_temp_dir=False is not possible; "
                "save_pretrained(folder, push_to_hub=True, repo_id=...) keeps the files"
            )
        keywords = {
            "repo_id": repo_id,
            "commit_message": commit_message,
            "commit_description": commit_description,
            "private": private,
            "token": token,
            "create_pr": create_pr,
            "revision": revision,
            "tags": tags,
            "use_auth_token": save_keywords.pop("use_auth_token", None),
        }
        with TemporaryDirectory() as folder:
            push = take_push(self, folder, True, keywords)
            assert push is not None
            self.save_pretrained(folder, **save_keywords)  # type: ignore[attr-defined]
            names = [path.name for path in Path(folder).iterdir() if path.is_file() and path.name != LOCK_NAME]
            return publish(folder, names, push, obsolete=self._obsolete_files(**save_keywords), kept=False)

    def _obsolete_files(self, **save_keywords: Any) -> Callable[[str], bool]:  # noqa: ARG002 (for models)
        """Return which files of a repository the new ones replace, whatever their names."""
        return lambda _: False


def publish(
    folder: str | os.PathLike[str],
    names: Iterable[str],
    push: Push,
    *,
    obsolete: Callable[[str], bool] = lambda _: False,
    kept: bool = True,
) -> Any:
    """Upload the files `names` of `folder` in one commit and return the client's CommitInfo.

    Files of the repository that are `obsolete` and not among `names` are deleted by that commit. A model card with the
    tags is part of it, if it is new or lacks some. kept: whether `folder` stays, for the error.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(token=push.token)
    names = sorted(set(names))
    with _explained(push, f" The files are saved in {folder}." if kept else ""):
        repo_id = api.create_repo(push.repo_id, private=push.private, exist_ok=True).repo_id
        if push.revision is not None and not push.revision.startswith("refs/"):
            api.create_branch(repo_id, branch=push.revision, exist_ok=True)
        info = api.model_info(repo_id, revision=push.revision)
        there = [each.rfilename for each in info.siblings or ()]
        gone = [name for name in there if obsolete(name) and name not in names]
        additions = [CommitOperationAdd(name, Path(folder) / name) for name in names]
        if _CARD_NAME not in names and (card := _card(repo_id, push, has_one=_CARD_NAME in there)):
            additions.append(CommitOperationAdd(_CARD_NAME, card.encode()))
        return api.create_commit(
            repo_id,
            [*additions, *(CommitOperationDelete(name) for name in gone)],
            commit_message=push.commit_message,
            commit_description=push.commit_description,
            revision=push.revision,
            create_pr=push.create_pr,
            # What is deleted was decided by this commit's files; without, two uploads of different files may cross.
            parent_commit=info.sha if gone else None,
        )


def _card(repo_id: str, push: Push, *, has_one: bool) -> str | None:
    """Return the text of the model card, None if that of the repository needs no change."""
    from huggingface_hub import ModelCard, ModelCardData, hf_hub_download
    from yaml import YAMLError  # what the client's cards raise

    if not has_one:
        data = ModelCardData(library_name=_LIBRARY, tags=list(push.tags) or None)
        return f"---\n{data.to_yaml()}\n---\n\n# {repo_id.rpartition('/')[2]}\n"
    if not push.tags:
        return None
    path = hf_hub_download(repo_id, _CARD_NAME, revision=push.revision, token=push.token)
    try:
        card = ModelCard.load(path)
    except (ValueError, YAMLError) as error:
        cause = " ".join(str(error).split())
        raise HubError(f"{repo_id}: the metadata of its {_CARD_NAME} cannot be read: {cause}. Correct it.") from error
    tags = list(card.data.tags or ())
    missing = [tag for tag in push.tags if tag not in tags]
    card.data.tags = tags + missing
    return str(card) if missing else None


@contextmanager
def _explained(push: Push, state: str) -> Iterator[None]:
    """Turn what the client raises into our errors."""
    from huggingface_hub import constants, errors

    # A RuntimeError is what the client makes of an upload of one file that failed.
    failures: tuple[type[Exception], ...] = (*client_errors(), RuntimeError)
    try:
        yield
    except HubError:
        raise
    except failures as error:
        cause = " ".join(str(each) for each in (error, error.__cause__) if each is not None)
        cause = " ".join(cause.split())
        if isinstance(error, errors.OfflineModeIsEnabled):
            raise HubOfflineError(f"{push.repo_id}: HF_HUB_OFFLINE forbids to push. Unset it.{state}") from error
        raise HubError(
            f"{push.repo_id}: {constants.ENDPOINT} did not take the upload: {cause} Pushing needs an access token that "
            f"may write there: {LOG_IN}.{state}"
        ) from error
