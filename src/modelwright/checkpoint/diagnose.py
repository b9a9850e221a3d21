"""What a file that is not the weights file that it claims to be most likely is, and what to do about it."""

import re
from pathlib import Path

_LFS = b"version https://git-lfs.github.com/spec/"


def likely_cause(path: Path, head: bytes, size: int, *, expected: int | None = None) -> str:
    """Return a sentence or two on why a weights file with the first bytes `head` and `size` bytes is unusable.

    `expected` is the size in bytes that it should have, if that is known.
    """
    text = head.lstrip().lower()
    if size == 0:
        return "The file is empty: a download or a save stopped before its first byte. Fetch or save it again."
    if head.startswith(_LFS):
        found = re.search(rb"size (\d+)", head)
        real = f" of a file of {int(found[1]):,} bytes" if found else ""
        return (
            f"It is a Git-LFS pointer{real}, not the weights: run `git lfs install` and `git lfs pull` in its folder."
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "It is a web page: the download saved an error or login page. Download the file again."
    if head.startswith(b"PK\x03\x04") and path.suffix == ".safetensors":
        return "It is a zip archive, perhaps a PyTorch .bin file with the wrong name."
    if head.startswith(b"\x80") and path.suffix == ".safetensors":
        return "It looks like a Python pickle with the wrong name."
    if text.startswith((b'{"error', b"{'error", b"entry not found", b"access to", b"invalid username")):
        return "It is an error message of a server, saved as a file. Download the file again."
    if not head.strip(b"\0"):
        return (
            "It starts with zero bytes: a crash or a full disk before its content was written. Fetch or save it again."
        )
    if expected is not None and size < expected:
        return (
            f"The file is truncated: {expected - size:,} bytes are missing at its end. An interrupted download or "
            "copy does that. Fetch or copy it again."
        )
    if expected is not None and size > expected:
        return f"{size - expected:,} bytes too many: a copy went wrong, or the header is damaged. Fetch it again."
    return "The file is damaged, or of another format. Fetch or save it again."


def read_head(path: Path, count: int = 512) -> bytes:
    """Return the first `count` bytes of the file, or fewer."""
    with path.open("rb") as file:
        return file.read(count)
