"""Named things that users may add to: a mapping whose errors list what there is."""

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Generic, TypeVar

from modelwright.core.errors import InputError, nearest

T = TypeVar("T")


class UnknownNameError(InputError, KeyError):
    """A name that a registry does not hold."""

    def __str__(self) -> str:
        # KeyError would show the message in quotes.
        return str(self.args[0])


class Registry(MutableMapping[str, T], Generic[T]):
    """A mapping of names to objects of one kind; `kind` names them in errors ("activation function").

    With a `parent`, names that this registry lacks are looked up there, and what is set here stays here: a local
    registry over a global one. Raises UnknownNameError, which is a KeyError and a ValueError, for an unknown name.
    """

    def __init__(
        self, kind: str, entries: Mapping[str, T] | None = None, *, parent: "Registry[T] | None" = None
    ) -> None:
        self.kind = kind
        self._own: dict[str, T] = dict(entries or {})
        self._parent = parent

    def register(self, key: str, value: T, exist_ok: bool = False) -> None:
        """Add `value` under `key`; raise InputError if the name is taken and `exist_ok` is False."""
        if not exist_ok and key in self:
            raise InputError(
                f"register {self.kind}: the name {key!r} is taken by {self[key]!r}; pass exist_ok=True to replace it"
            )
        self._own[key] = value

    def local(self) -> "Registry[T]":
        """Return an empty registry above this one: it sees everything here and changes nothing here."""
        return Registry(self.kind, parent=self)

    def __getitem__(self, key: str) -> T:
        if key in self._own:
            return self._own[key]
        if self._parent is not None and key in self._parent:
            return self._parent[key]
        hint = nearest(key, self) if isinstance(key, str) else ""
        raise UnknownNameError(
            f"unknown {self.kind} {key!r}: expected one of {', '.join(sorted(self)) or 'none (nothing is registered)'}."
            f"{hint}"
        )

    def __setitem__(self, key: str, value: T) -> None:
        self._own[key] = value

    def __delitem__(self, key: str) -> None:
        if key not in self._own:
            self[key]  # raises for a name that nobody has
            raise InputError(f"{self.kind} {key!r} belongs to the parent registry and cannot be deleted here")
        del self._own[key]

    def __contains__(self, key: object) -> bool:
        return key in self._own or (self._parent is not None and key in self._parent)

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        if self._parent is not None:
            yield from (key for key in self._parent if key not in self._own)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Registry({self.kind!r}: {', '.join(sorted(self))})"
