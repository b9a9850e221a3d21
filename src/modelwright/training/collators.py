"""Data collators: a list of encoded examples becomes one padded batch of torch tensors, with labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from modelwright.core.errors import InputError
from modelwright.nn.losses import IGNORED
from modelwright.tokenization.base import PreTrainedTokenizerBase
from modelwright.tokenization.tensors import to_list

Features = Sequence[Mapping[str, Any]]


@dataclass
class DataCollatorWithPadding:
    """Pads examples to the longest one; `padding`, `max_length` and `pad_to_multiple_of` are those of a call."""

    tokenizer: PreTrainedTokenizerBase
    padding: Any = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None

    def __call__(self, features: Features) -> dict[str, Any]:
        """Return the batch; `label` or `label_ids` of each example become `labels`."""
        batch = self._pad(features)
        for name in ("label", "label_ids"):
            if name in batch:
                batch["labels"] = batch.pop(name)
        return batch

    def _pad(self, features: Features) -> dict[str, Any]:
        return dict(
            self.tokenizer.pad(
                [dict(feature) for feature in features],
                padding=self.padding,
                max_length=self.max_length,
                pad_to_multiple_of=self.pad_to_multiple_of,
                return_tensors="pt",
            )
        )

    def _pad_labels(self, labels: list[list[int]], length: int, fill: int) -> torch.Tensor:
        left = self.tokenizer.padding_side == "left"
        rows = []
        for row in labels:
            filling = [fill] * (length - len(row))
            rows.append(filling + row if left else row + filling)
        return torch.tensor(rows, dtype=torch.int64)


@dataclass
class DataCollatorForTokenClassification(DataCollatorWithPadding):
    """Pads examples and their `labels`, one for each token."""

    label_pad_token_id: int = IGNORED

    def __call__(self, features: Features) -> dict[str, Any]:
        """Return the batch; raises InputError for an example whose labels do not fit its tokens."""
        name = "label" if features and "label" in features[0] else "labels"
        labels = [list(to_list(feature[name])) for feature in features if name in feature]
        batch = self._pad([{key: value for key, value in each.items() if key != name} for each in features])
        if labels:
            for number, (feature, row) in enumerate(zip(features, labels, strict=True)):
                if len(row) != len(feature["input_ids"]):
                    raise InputError(
                        f"DataCollatorForTokenClassification: example {number}: expected a label for each of the "
                        f"{len(feature['input_ids'])} tokens, got {len(row)}."
                    )
            batch["labels"] = self._pad_labels(labels, batch["input_ids"].shape[1], self.label_pad_token_id)
        return batch


@dataclass
class DataCollatorForSeq2Seq(DataCollatorWithPadding):
    """Pads examples and their `labels`, a text of its own length.

    model: if it has `prepare_decoder_input_ids_from_labels`, the batch also gets `decoder_input_ids`.
    """

    model: Any = None
    label_pad_token_id: int = IGNORED

    def __call__(self, features: Features) -> dict[str, Any]:
        """Return the batch."""
        name = "label" if features and "label" in features[0] else "labels"
        labels = [list(to_list(feature[name])) for feature in features if feature.get(name) is not None]
        batch = self._pad([{key: value for key, value in each.items() if key != name} for each in features])
        if labels:
            longest = max(map(len, labels))
            if self.padding == "max_length" and self.max_length is not None:
                longest = self.max_length
            multiple = self.pad_to_multiple_of or 1
            length = -(-longest // multiple) * multiple
            batch["labels"] = self._pad_labels(labels, length, self.label_pad_token_id)
            prepare = getattr(self.model, "prepare_decoder_input_ids_from_labels", None)
            if prepare is not None:
                batch["decoder_input_ids"] = prepare(labels=batch["labels"])
        return batch


@dataclass
class DataCollatorForLanguageModeling:
    """Makes the labels of causal (`mlm=False`) or masked language modelling.

    mlm_probability: of a token to be predicted, in [0, 1]; of those, mask_replace_prob become the mask token,
    random_replace_prob a random one, the rest stay (Devlin et al. 2018). whole_words: all tokens of a word are chosen
    together. seed: of the choices; None draws from torch's own stream. Labels are -100 where nothing is predicted.
    Raises InputError without a mask token, or for probabilities that cannot be.
    """

    tokenizer: PreTrainedTokenizerBase
    mlm: bool = True
    mlm_probability: float = 0.15
    mask_replace_prob: float = 0.8
    random_replace_prob: float = 0.1
    pad_to_multiple_of: int | None = None
    whole_words: bool = False
    seed: int | None = None
    _generator: torch.Generator | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the options."""
        where = type(self).__name__
        if self.mlm and self.tokenizer.mask_token_id is None:
            raise InputError(
                f"{where}: {type(self.tokenizer).__name__} has no mask token: add one with "
                'tokenizer.add_special_tokens({"mask_token": "[MASK]"}), or pass mlm=False.'
            )
        for name in ("mlm_probability", "mask_replace_prob", "random_replace_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{where}: expected {name} between 0 and 1, got {getattr(self, name)!r}.")
        if self.mask_replace_prob + self.random_replace_prob > 1:
            raise InputError(f"{where}: expected mask_replace_prob + random_replace_prob of at most 1.")
        if self.seed is not None:
            self._generator = torch.Generator().manual_seed(self.seed)

    def __call__(self, features: Features) -> dict[str, Any]:
        """Return the batch of examples, each with `input_ids` or a bare list of ids."""
        rows = [dict(each) if isinstance(each, Mapping) else {"input_ids": each} for each in features]
        lengths = {len(row["input_ids"]) for row in rows}
        pads = len(lengths) > 1 or bool(self.pad_to_multiple_of)
        batch = dict(
            self.tokenizer.pad(
                rows, padding=pads, pad_to_multiple_of=self.pad_to_multiple_of if pads else None, return_tensors="pt"
            )
        )
        special = batch.pop("special_tokens_mask", None)
        ids = batch["input_ids"]
        if not self.mlm:
            batch["labels"] = ids.clone()
            if self.tokenizer.pad_token_id is not None:
                batch["labels"][ids == self.tokenizer.pad_token_id] = IGNORED
            return batch
        if special is None:
            special = torch.isin(ids, torch.tensor(self.tokenizer.all_special_ids))
        batch["input_ids"], batch["labels"] = self.mask_tokens(ids, special.bool())
        return batch

    def mask_tokens(self, ids: torch.Tensor, special: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the masked ids and the labels of `ids` [rows, tokens]; `special` tokens are never chosen."""
        chance = self._draw(ids.shape)
        if self.whole_words:
            chance = torch.gather(chance, 1, self._first_of_word(ids))
        chosen = (chance < self.mlm_probability) & ~special
        labels = torch.where(chosen, ids, torch.full_like(ids, IGNORED))
        kind = self._draw(ids.shape)
        masked = chosen & (kind < self.mask_replace_prob)
        random = chosen & ~masked & (kind < self.mask_replace_prob + self.random_replace_prob)
        words = torch.randint(len(self.tokenizer), ids.shape, generator=self._generator)
        ids = torch.where(masked, torch.full_like(ids, self.tokenizer.mask_token_id or 0), ids)
        return torch.where(random, words, ids), labels

    def _draw(self, shape: torch.Size) -> torch.Tensor:
        return torch.rand(shape, generator=self._generator)

    def _first_of_word(self, ids: torch.Tensor) -> torch.Tensor:
        """Return, for each token, where its word begins."""
        firsts = []
        special = set(self.tokenizer.all_special_tokens)
        for row in ids.tolist():
            tokens = [str(self.tokenizer.convert_ids_to_tokens(index)) for index in row]
            pieces = any(token.startswith("##") for token in tokens)
            marked = any(token.startswith(("▁", "Ġ")) for token in tokens)
            first: list[int] = []
            for at, token in enumerate(tokens):
                inside = token.startswith("##") if pieces else marked and not token.startswith(("▁", "Ġ"))
                joins = at > 0 and inside and token not in special and tokens[at - 1] not in special
                first.append(first[-1] if joins else at)
            firsts.append(first)
        return torch.tensor(firsts, dtype=torch.int64)


@dataclass
class DataCollatorForWholeWordMask(DataCollatorForLanguageModeling):
    """Masked language modelling of whole words."""

    whole_words: bool = True
