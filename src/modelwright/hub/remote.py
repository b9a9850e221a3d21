"""A repository of the hub: its files are listed once, downloaded when they are asked for, and read as local paths.

    revision --one request--> commit and names of files --as asked for--> files in the client's cache

All files of one repository object are of one commit. When the hub cannot be asked, what the cache has is what there is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from modelwright.core.errors import HubError, HubOfflineError, RepoError, nearest
from modelwright.core.logging import get_logger
from modelwright.hub.download import Download
from modelwright.hub.failures import client_errors, explain
from modelwright.hub.local import LocalRepo
from modelwright.hub.repo import Repo, check_filename

logger = get_logger(__name__)

_Listing = tuple[str, frozenset[str]]  # a commit and the paths of its files
_SHORT = 8

# The listings of commits that a revision was resolved to, by endpoint, repository and commit. They never change.
_LISTED: dict[tuple[str, str, str], _Listing] = {}
_MOST_LISTED = 64


class HubRepo:
    """The files of `commit_hash` in the folder `subfolder` of the repository `name`, downloaded one by one."""

    def __init__(self, name: str, subfolder: str, download: Download, listing: _Listing) -> None:
        self.name = name
        self.commit_hash: str | None = listing[0]
        self._commit, self._names = listing
        self._folder = PurePosixPath(subfolder)
        self._download = download
        self._fetched: dict[str, Path] = {}

    def has(self, filename: str) -> bool:
        """Tell whether the commit holds `filename`; nothing is downloaded."""
        return self._inside(filename) in self._names

    def path(self, filename: str, *, contained: bool = False) -> Path:
        """Return the path of `filename` in the cache, after downloading it if need be; see `Repo.path`."""
        inside = self._inside(filename)
        if inside not in self._names:
            raise RepoError(f"{self}: there is no file {inside!r}.{nearest(inside, self._names)}")
        if inside not in self._fetched:
            self._fetched[inside] = self._fetch(inside)
        root = self._fetched[inside].parents[len(PurePosixPath(inside).parts) - 1]
        return LocalRepo(root).path(inside, contained=contained)

    def files(self, folder: str = "") -> list[str]:
        """Return the sorted names of the files directly in the repository's folder, or in `folder` below it."""
        wanted = PurePosixPath(self._inside(folder)) if folder else self._folder
        return sorted(path.name for path in map(PurePosixPath, self._names) if path.parent == wanted)

    def has_folder(self, folder: str) -> bool:
        """Tell whether the commit holds files below `folder`."""
        return any(PurePosixPath(folder) in PurePosixPath(name).parents for name in self._names)

    def _inside(self, filename: str) -> str:
        return str(self._folder / check_filename(str(self), filename))

    def _fetch(self, inside: str) -> Path:
        from huggingface_hub import hf_hub_download

        # The first file is asked for by the revision's name: the cache then notes which commit that is, which is how
        # the revision is found without a network. A commit that the cache has needs no request at all.
        revision = self._commit if self._fetched or self._download.commit_hash else self._download.revision
        with _explained(self.name, self._download, inside):
            found = Path(
                hf_hub_download(
                    self.name,
                    inside,
                    revision=revision,
                    cache_dir=self._download.cache_folder,
                    token=self._download.token,
                    force_download=self._download.force_download,
                )
            )
        commit = found.parents[len(PurePosixPath(inside).parts) - 1].name
        if commit != self._commit:
            raise HubError(f"{self}: the revision moved to commit {commit} while it was read. Load it again.")
        return found

    def __str__(self) -> str:
        return f"{self.name} (revision {self._download.revision!r}, commit {self._commit[:_SHORT]})"


class CachedRepo(LocalRepo):
    """The files of a hub repository that the cache has: all that there is when the hub is not asked."""

    def __init__(self, name: str, snapshot: Path, subfolder: str, download: Download) -> None:
        super().__init__(snapshot / subfolder)
        self.name = name
        self.commit_hash = snapshot.name
        self._revision = download.revision

    def _missing(self, found: str, hint: str) -> RepoError:
        return HubOfflineError(f"{self}: {found}.{hint} Load it once with a connection, and without local_files_only.")

    def __str__(self) -> str:
        commit = (self.commit_hash or "")[:_SHORT]
        return f"{self.name} (revision {self._revision!r}, commit {commit}, of which the cache is used, not the hub)"


def open_hub_repo(name: str, subfolder: str, download: Download) -> Repo:
    """Return the repository `name` of the hub at the revision that `download` asks for.

    Raises RepoNotFoundError, GatedRepoError, HubOfflineError or another HubError.
    """
    if download.local_files_only:
        return _open_cached(name, subfolder, download, explain(HubOfflineError(), name, download))
    try:
        with _explained(name, download):
            listing = _list(name, download)
    except HubError as error:
        return _open_cached(name, subfolder, download, error)
    repo = HubRepo(name, subfolder, download, listing)
    if subfolder and not repo.has_folder(subfolder):
        raise RepoError(f"{repo}: there is no folder {subfolder!r}.")
    return repo


def _open_cached(name: str, subfolder: str, download: Download, error: HubError) -> CachedRepo:
    """Return what the cache has of the repository; raise `error`, why the hub is not asked, if that is nothing."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    snapshot = None if download.force_download else _snapshot(name, download)
    if snapshot is None or not (snapshot / subfolder).is_dir():
        raise error
    if not (download.local_files_only or isinstance(error.__cause__, OfflineModeIsEnabled)):
        logger.warning("%s: commit %s, from the cache, is used. %s", name, snapshot.name[:_SHORT], error)
    return CachedRepo(name, snapshot, subfolder, download)


def _list(name: str, download: Download) -> _Listing:
    """Return the commit and its files, in one request, or in none if this commit was listed before."""
    from huggingface_hub import HfApi

    api = HfApi()
    if download.commit_hash and (known := _LISTED.get((api.endpoint, name, download.commit_hash))):
        return known
    info = api.model_info(name, revision=download.commit_hash or download.revision, token=download.token)
    if not info.sha:
        raise HubError(f"{name}: {api.endpoint} does not say which commit {download.revision!r} is.")
    listing = (info.sha, frozenset(each.rfilename for each in info.siblings or ()))
    if len(_LISTED) >= _MOST_LISTED:
        _LISTED.clear()
    _LISTED[api.endpoint, name, info.sha] = listing
    return listing


def _snapshot(name: str, download: Download) -> Path | None:
    """Return the folder of the cache with what was downloaded of the revision, or None."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    revision = download.commit_hash or download.revision
    try:
        return Path(snapshot_download(name, revision=revision, cache_dir=download.cache_folder, local_files_only=True))
    except LocalEntryNotFoundError as error:
        # Newer clients know that files are missing, as they are where only some were asked for, and say where it is.
        found: str | None = getattr(error, "snapshot_path", None)
        return None if found is None else Path(found)
    except HFValidationError:
        return None


@contextmanager
def _explained(name: str, download: Download, filename: str | None = None) -> Iterator[None]:
    """Turn what the client raises into our errors."""
    try:
        yield
    except HubError:
        raise
    except client_errors() as error:
        raise explain(error, name, download, filename) from error
