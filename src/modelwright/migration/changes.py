"""What a migration did to a file, and what is left to do by hand. Data."""

import difflib
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Note:
    """A name or a place in a file (1 is its first line), and what is said about it."""

    line: int
    what: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the note as JSON-ready data."""
        return {"line": self.line, "what": self.what, "reason": self.reason}


@dataclass
class Changes:
    """The text of a file before and after, and what was moved, what was kept and why, and what to look at by hand."""

    before: str
    after: str
    moved: list[Note] = field(default_factory=list)
    kept: list[Note] = field(default_factory=list)
    by_hand: list[Note] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether the text differs."""
        return self.before != self.after

    def diff(self, path: str) -> str:
        """Return a unified diff, "" if nothing changed."""
        before, after = (text.splitlines(keepends=True) for text in (self.before, self.after))
        return "".join(difflib.unified_diff(before, after, fromfile=path, tofile=path))

    def to_dict(self) -> dict[str, Any]:
        """Return all but the texts as JSON-ready data."""
        notes = {name: [note.to_dict() for note in getattr(self, name)] for name in ("moved", "kept", "by_hand")}
        return {"changed": self.changed, **notes}
