"""What the hub's client raises, in sentences that name the repository, the revision, the file and the way out."""

from pathlib import Path

from modelwright.core.errors import GatedRepoError, HubError, HubOfflineError, RepoNotFoundError
from modelwright.hub.download import Download

LOG_IN = "log in with `hf auth login`, or pass token="


def client_errors() -> tuple[type[Exception], ...]:
    """Return the classes of everything that a call of the client raises when it fails.

    Its errors derive from those of its HTTP library, another one since its version 1; that base also covers a
    connection that fails.
    """
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    # ValueError: a name that is none, and whatever happens with force_download.
    return (OSError, ValueError, EntryNotFoundError, *HfHubHTTPError.__bases__)


def explain(error: Exception, name: str, download: Download, filename: str | None = None) -> HubError:
    """Return the error to raise instead of `error`, which came while the client read `filename` of the repository."""
    from huggingface_hub import constants, errors

    hub, what = constants.ENDPOINT, f"{name} (revision {download.revision!r})"
    if filename is not None:
        what += f": {filename}"
    # "Not in the cache" and "force_download failed" are said of every failure; what failed is their cause.
    if isinstance(error, errors.LocalEntryNotFoundError) or type(error) is ValueError:
        error = error.__cause__ if isinstance(error.__cause__, Exception) else error
    cause = " ".join(str(error).split())
    if isinstance(error, errors.GatedRepoError):
        return GatedRepoError(
            f"{what}: the repository is gated. Ask its owner for access at {hub}/{name}, then {LOG_IN}."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return RepoNotFoundError(
            f"{name!r} is no folder on this machine (working folder: {Path.cwd()}), and {hub} has no model repository "
            f"of this name, or does not show it to you. Check the name; if it is private, {LOG_IN}."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return RepoNotFoundError(
            f"{name}: the repository has no branch, tag or commit {download.revision!r}; see {hub}/{name}/tree/main."
        )
    if isinstance(error, errors.LocalTokenNotFoundError):
        return HubError(f"{what}: token=True asks for the token of this machine, and there is none: {LOG_IN}.")
    if isinstance(error, errors.HFValidationError):
        return RepoNotFoundError(
            f"{name!r} is no folder on this machine (working folder: {Path.cwd()}) and no name of a hub repository "
            f"('name' or 'organisation/name'): {cause}"
        )
    if download.local_files_only or isinstance(error, errors.OfflineModeIsEnabled):
        switch = "local_files_only=True" if download.local_files_only else "HF_HUB_OFFLINE"
        return HubOfflineError(
            f"{what}: it is no folder on this machine, {switch} forbids to ask {hub}, and the cache "
            f"{download.cache_dir or constants.HF_HUB_CACHE} does not hold it. Load it once without {switch}, or give "
            "the path of a folder."
        )
    if isinstance(error, errors.HfHubHTTPError | errors.EntryNotFoundError):
        return HubError(f"{what}: {hub} refused: {cause}")
    if isinstance(error, ConnectionError | TimeoutError) or not _is_of_this_machine(error):
        no_folder = "it is no folder on this machine, " if filename is None else ""
        return HubOfflineError(
            f"{what}: {no_folder}{hub} cannot be reached ({_root(error)}), and the cache "
            f"{download.cache_dir or constants.HF_HUB_CACHE} does not hold it. Check the connection, or give the path "
            "of a folder."
        )
    return HubError(f"{what}: it cannot be downloaded: {cause}")


def _root(error: BaseException) -> str:
    """Return what went wrong first: "ConnectionRefusedError: [Errno 111] Connection refused"."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _is_of_this_machine(error: Exception) -> bool:
    """Tell whether it is an error of the file system (it names a file, or the disk is full), not of the network."""
    return isinstance(error, OSError) and type(error).__module__ == "builtins" and error.errno is not None
