"""The registries of attention kernels: a name in a config or a call becomes a function.

Every kernel has one contract. Legend: B batch, H query heads, G key/value heads (H is a multiple of G), T query tokens,
S key tokens, D head size.

    kernel(module, query_BHTD, key_BGSD, value_BGSD, attention_mask, scaling=None, dropout=0.0, is_causal=None,
           sliding_window=None, **kwargs) -> (output_BTHD, weights_BHTS or None)
"""

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, ClassVar, Generic, TypeVar

from modelwright.attention.eager import eager_attention_forward
from modelwright.attention.flash import HOW_TO_GET_FLASH, flash_attention_forward
from modelwright.attention.flex import flex_attention_forward
from modelwright.attention.sdpa import sdpa_attention_forward
from modelwright.core.errors import nearest
from modelwright.core.logging import get_logger
from modelwright.core.optional import is_available
from modelwright.core.registry import UnknownNameError

logger = get_logger(__name__)
T = TypeVar("T", bound=Callable[..., Any])
DEFAULT_IMPLEMENTATION = "sdpa"


class GeneralInterface(MutableMapping[str, T], Generic[T]):
    """Names of functions: `register` adds to what every instance sees; `instance[name] = f` and `del` only to this one.

    Raises UnknownNameError, which is a KeyError and a ValueError, with the sorted names that there are.
    """

    kind: ClassVar[str] = "function"
    _global_mapping: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        self._local_mapping: dict[str, T] = {}

    def __getitem__(self, key: str) -> T:
        for mapping in (self._local_mapping, self._global_mapping):
            if key in mapping:
                found: T = mapping[key]
                return found
        raise self.unknown(key)

    def __setitem__(self, key: str, value: T) -> None:
        self._local_mapping[key] = value

    def __delitem__(self, key: str) -> None:
        if key not in self._local_mapping:
            raise UnknownNameError(
                f"{type(self).__name__}: {key!r} is not set on this instance, so it cannot be deleted here; set here: "
                f"{', '.join(sorted(self._local_mapping)) or 'nothing'}"
            )
        del self._local_mapping[key]

    def __iter__(self) -> Iterator[str]:
        yield from {**self._global_mapping, **self._local_mapping}

    def __len__(self) -> int:
        return len({**self._global_mapping, **self._local_mapping})

    @classmethod
    def register(cls, key: str, value: T) -> None:
        """Add `value` under `key` for every instance of this class; a later one replaces an earlier one."""
        cls._global_mapping[key] = value

    def valid_keys(self) -> list[str]:
        """Return the names that can be looked up here."""
        return list(self)

    def unknown(self, key: object) -> UnknownNameError:
        """Return the error for a name that nobody registered."""
        hint = nearest(key, self) if isinstance(key, str) else ""
        return UnknownNameError(
            f"{key!r} is not a valid {self.kind} registered in the `{type(self).__name__}`: expected one of "
            f"{', '.join(sorted(self))}.{hint} Add your own with {type(self).__name__}.register(name, function)."
        )


class AttentionInterface(GeneralInterface[Callable[..., Any]]):
    """The attention kernels by name: `eager`, `sdpa`, `flex_attention`, and what users register.

    Where the package flash-attn is installed, also `flash_attention_2`.

    A model that needs a kernel of its own makes an instance and sets it there: `attention["sdpa"] = mine`.
    """

    kind = "attention implementation"
    _global_mapping: ClassVar[dict[str, Any]] = {
        "eager": eager_attention_forward,
        "sdpa": sdpa_attention_forward,
        "flex_attention": flex_attention_forward,
        **({"flash_attention_2": flash_attention_forward} if is_available("flash_attn") else {}),
    }

    def unknown(self, key: object) -> UnknownNameError:
        """Return the error for a name that nobody registered; for FlashAttention it says how to get it."""
        error = super().unknown(key)
        return UnknownNameError(f"{error} {HOW_TO_GET_FLASH}") if key == "flash_attention_2" else error

    def get_interface(
        self, attn_implementation: str | None, default: Callable[..., Any] | None = None
    ) -> Callable[..., Any]:
        """Return the kernel of this name; "eager" is the model's own `default` where it has one.

        None means `default` with one warning. Raises UnknownNameError that lists the names.
        """
        if attn_implementation is None:
            logger.warning_once(
                "No attention implementation is chosen (the config's `_attn_implementation` is None), so the model's "
                "eager one is used; pass attn_implementation= when the model is made."
            )
            attn_implementation = "eager"
        if attn_implementation == "eager" and default is not None and "eager" not in self._local_mapping:
            return default
        return self[attn_implementation]


ALL_ATTENTION_FUNCTIONS = AttentionInterface()


def implementation_of(config: Any) -> str:
    """Return the name of the attention kernel that `config` asks for: `sdpa` unless it says otherwise.

    The kernel and its mask must come from the same answer. Raises UnknownNameError for a name nobody registered.
    """
    name = getattr(config, "_attn_implementation", None) or DEFAULT_IMPLEMENTATION
    if name not in ALL_ATTENTION_FUNCTIONS:
        raise ALL_ATTENTION_FUNCTIONS.unknown(name)
    return str(name)
