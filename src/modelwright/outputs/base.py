"""ModelOutput: a dataclass that is also an ordered mapping of its fields that are not None, and a tuple of them."""

import dataclasses
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from modelwright.core.errors import InputError, nearest

# Subclasses that torch does not know yet as containers, because torch was not imported when they were made.
_unregistered: list[type["ModelOutput"]] = []


class ModelOutput(OrderedDict[str, Any]):
    """Base of the objects that models return.

    A subclass is a `@dataclass` whose fields all have defaults. A field that is None is absent from the mapping and
    from the tuple: `output["logits"]`, `output.logits`, `output[0]`, `output[:2]` and `output.to_tuple()` all see the
    others, in the order of the fields. Iterating gives names, as for any mapping. A mapping, or pairs of names and
    values, may be given as the only argument instead of keywords. torch's containers utilities (DataParallel, DDP,
    `torch.utils._pytree`) map over the fields.

    Raises InputError for a name that is no field, and when a field is deleted (set it to None instead).
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _unregistered.append(cls)
        _register_with_torch()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Dataclass subclasses have a constructor of their own; this one makes a plain ModelOutput(name=value, ...).
        self._check_decorated()
        super().__init__()
        for name, value in dict(*args, **kwargs).items():
            setattr(self, name, value)

    def __post_init__(self) -> None:
        self._check_decorated()
        _register_with_torch()
        names = self._names()
        first = getattr(self, names[0])
        if first is None or len(self) != 1:
            return
        items = _as_items(first, names)
        if items is not None:
            setattr(self, names[0], None)
            for name, value in items.items():
                self[name] = value

    def _check_decorated(self) -> None:
        if "__annotations__" in vars(type(self)) and "__dataclass_fields__" not in vars(type(self)):
            raise InputError(f"{type(self).__name__} is a ModelOutput with fields: decorate the class with @dataclass")

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        return tuple(getattr(cls, "__dataclass_fields__", ()))

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the values that are not None, in the order of the fields."""
        return tuple(self[name] for name in self)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        names = self._names()
        if name not in names and (names or name.startswith("_")):
            return  # An attribute beside the fields.
        if value is None:
            if name in self:
                super().__delitem__(name)
            return
        added = name not in self
        super().__setitem__(name, value)
        if added and names:
            for later in names[names.index(name) + 1 :]:
                if later in self:
                    self.move_to_end(later)

    def __setitem__(self, name: str, value: Any) -> None:
        names = self._names()
        if names and name not in names:
            hint = nearest(name, names) if isinstance(name, str) else ""
            raise InputError(f"{type(self).__name__} has no field {name!r}: expected one of {', '.join(names)}.{hint}")
        setattr(self, name, value)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return super().__getitem__(key)
        return self.to_tuple()[key]

    def __delitem__(self, key: Any) -> None:
        raise InputError(f"{type(self).__name__}: a field cannot be deleted; set {key!r} to None instead")

    def pop(self, key: Any, *_: Any) -> Any:
        """Raise InputError: fields cannot be deleted."""
        self.__delitem__(key)

    def popitem(self, last: bool = True) -> tuple[str, Any]:
        """Raise InputError: fields cannot be deleted."""
        self.__delitem__("last" if last else "first")
        raise AssertionError

    def clear(self) -> None:
        """Raise InputError: fields cannot be deleted."""
        self.__delitem__("all")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), dict(self))

    def copy(self) -> Self:
        """Return a new object with the same fields."""
        return type(self)(**self)


def _rebuild(cls: type[ModelOutput], values: dict[str, Any]) -> ModelOutput:
    return cls(**values)


def _as_items(value: Any, names: tuple[str, ...]) -> dict[str, Any] | None:
    """Return `value` as a dictionary of fields if it is a mapping or pairs of them, else None: it is a field's value.

    `torch.nn.DataParallel` and accelerate rebuild a mapping with `type(output)(pairs)`.
    """
    given = value
    if isinstance(value, Mapping):
        value = list(value.items())
    elif isinstance(value, Iterator):
        value = list(value)
    elif not isinstance(value, list | tuple):
        return None
    pairs = [pair for pair in value if isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str)]
    if value and len(pairs) == len(value) and all(pair[0] in names for pair in pairs):
        return {pair[0]: pair[1] for pair in pairs}
    if isinstance(given, Iterator):
        raise InputError(f"expected pairs of a field and its value, fields being {', '.join(names)}; got {value!r}")
    return None


def _register_with_torch() -> None:
    """Tell torch how to take the waiting subclasses apart, if torch is imported; this room does not import it."""
    if not _unregistered or "torch" not in sys.modules:
        return
    from torch.utils import _pytree

    while _unregistered:
        cls = _unregistered.pop()
        _pytree.register_pytree_node(
            cls,
            _flatten,
            _Unflatten(cls),
            serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
            flatten_with_keys_fn=_flatten_with_keys,
        )


def _flatten(output: ModelOutput) -> tuple[list[Any], list[str]]:
    return list(output.values()), list(output.keys())


def _flatten_with_keys(output: ModelOutput) -> tuple[list[tuple[Any, Any]], list[str]]:
    from torch.utils._pytree import MappingKey

    return [(MappingKey(name), value) for name, value in output.items()], list(output.keys())


@dataclasses.dataclass(frozen=True)
class _Unflatten:
    """Rebuilds one class from its values and the names of those that were there."""

    cls: type[ModelOutput]

    def __call__(self, values: Iterable[Any], names: Any) -> ModelOutput:
        return self.cls(**dict(zip(names, values, strict=True)))
