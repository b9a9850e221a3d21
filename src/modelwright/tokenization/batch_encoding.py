"""What a tokenizer returns: a dictionary of fields, also read as attributes."""

from collections import UserDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from modelwright.core.errors import InputError, nearest
from modelwright.core.logging import get_logger
from modelwright.tokenization.alignment import AlignmentMixin
from modelwright.tokenization.strategies import TensorType
from modelwright.tokenization.tensors import is_torch_tensor, parse_tensor_type, to_array, to_list

logger = get_logger(__name__)


class BatchEncoding(AlignmentMixin, UserDict[str, Any]):
    """The fields of one tokenizer call: `input_ids`, `attention_mask`, ...; each a list, a batch of lists or an array.

    A field is read as `batch["input_ids"]` or `batch.input_ids`, and the whole is passed to a model as `**batch`.
    """

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        tensor_type: str | TensorType | None = None,
        prepend_batch_axis: bool = False,
        ids_to_tokens: Callable[[list[int]], list[str]] | None = None,
        encoding: Any = None,
    ) -> None:
        """Wrap `data`; `tensor_type` and `prepend_batch_axis` are those of `convert_to_tensors`.

        ids_to_tokens: what `tokens` uses; a tokenizer passes its own. encoding: the `tokenizers.Encoding` of each row,
        or of the one row, which the lookups of words and characters use.
        """
        super().__init__(data or {})
        self._ids_to_tokens = ids_to_tokens
        self._encodings = encoding if encoding is None or isinstance(encoding, list) else [encoding]
        self.convert_to_tensors(tensor_type, prepend_batch_axis=prepend_batch_axis)

    def __getitem__(self, key: Any) -> Any:
        """Return the field `key`; for a number that row's encoding, for a slice those rows of every field."""
        if isinstance(key, int):
            return self._row("__getitem__", key)
        if isinstance(key, slice):
            return {name: value[key] for name, value in self.data.items()}
        return super().__getitem__(key)

    def __getattr__(self, name: str) -> Any:
        # "data" is absent while an instance is being copied or unpickled.
        if name.startswith("__") or name == "data" or name not in self.data:
            hint = "" if name == "data" or name.startswith("__") else nearest(name, self.data)
            raise AttributeError(f"BatchEncoding has no field {name!r}.{hint}", name=name, obj=self)
        return self.data[name]

    def __getstate__(self) -> dict[str, Any]:
        # A data loader's worker sends batches through a pipe: without the tokenizer behind them.
        return {**self.__dict__, "_ids_to_tokens": None}

    def __dir__(self) -> Iterator[str]:
        yield from super().__dir__()
        yield from self.data

    def convert_to_tensors(
        self, tensor_type: str | TensorType | None = None, *, prepend_batch_axis: bool = False
    ) -> Self:
        """Turn every field into an array, in place: "pt" torch, "tf" TensorFlow, "jax" JAX, "np" numpy, None nothing.

        prepend_batch_axis: the fields hold one text; make them a batch of one.
        Raises InputError when rows differ in length or a field holds no numbers, MissingPackageError.
        """
        if tensor_type is None:
            return self
        kind = parse_tensor_type("BatchEncoding", tensor_type)
        for name, value in self.data.items():
            self.data[name] = to_array(name, value, kind, prepend_batch_axis=prepend_batch_axis)
        return self

    def to(self, device: Any, *, non_blocking: bool = False) -> Self:
        """Move every torch tensor to `device` (a name, a number or a torch.device), in place, and return self."""
        moved = {name: value for name, value in self.data.items() if is_torch_tensor(value)}
        if not moved:
            logger.warning_once("BatchEncoding.to moved nothing: it holds no torch tensor. Pass return_tensors='pt'.")
        for name, value in moved.items():
            self.data[name] = value.to(device=device, non_blocking=non_blocking)
        return self

    def tokens(self, batch_index: int = 0) -> list[str]:
        """Return the tokens of one row, as strings.

        Raises InputError when the row does not exist or this object did not come from a tokenizer.
        """
        if self._encodings is not None:
            found: list[str] = self._row("tokens", batch_index).tokens
            return found
        if self._ids_to_tokens is None:
            raise InputError("BatchEncoding.tokens needs a tokenizer: call tokenizer.convert_ids_to_tokens instead.")
        ids = to_list(self.data["input_ids"])
        rows = ids if ids and isinstance(ids[0], (list, tuple)) else [ids]
        rows = [to_list(row) for row in rows]
        if not -len(rows) <= batch_index < len(rows):
            raise InputError(f"BatchEncoding.tokens: expected a row below {len(rows)}, got {batch_index}.")
        return self._ids_to_tokens(rows[batch_index])
