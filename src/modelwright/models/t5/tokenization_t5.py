"""T5's tokenizer in Python."""

from typing import Any

from tokenizers import AddedToken

from modelwright.core.logging import get_logger
from modelwright.models.t5.extra_ids import sentinels, with_sentinels
from modelwright.tokenization.added_tokens import as_added_token
from modelwright.tokenization.sentencepiece_tokenizer import SPACE, SentencePieceTokenizer

logger = get_logger(__name__)


class T5Tokenizer(SentencePieceTokenizer):
    """SentencePiece with `</s>` after each text, and sentinel tokens behind the vocabulary, counted downwards."""

    second_token_type = 0

    def __init__(
        self,
        vocab_file: Any,
        eos_token: Any = "</s>",
        unk_token: Any = "<unk>",
        pad_token: Any = "<pad>",
        extra_ids: int = 100,
        additional_special_tokens: Any = None,
        sp_model_kwargs: dict[str, Any] | None = None,
        legacy: bool | None = None,
        add_prefix_space: bool = True,
        **kwargs: Any,
    ) -> None:
        """Read the model.

        extra_ids: the number of sentinels `<extra_id_0>`, ... legacy: None and True give the text after an added token
        a space of its own, as 4.x does; False does not. add_prefix_space: with legacy=False, whether a text begins
        with a space. sp_model_kwargs and errors: as in SentencePieceTokenizer.
        """
        self.legacy = True if legacy is None else legacy
        self.add_prefix_space = add_prefix_space
        self._extra_ids = extra_ids
        where = type(self).__name__
        roles = {
            name: as_added_token(where, token, special=True) if isinstance(token, str) else token
            for name, token in (("eos_token", eos_token), ("unk_token", unk_token), ("pad_token", pad_token))
        }
        super().__init__(
            vocab_file,
            sp_model_kwargs=sp_model_kwargs,
            extra_ids=extra_ids,
            additional_special_tokens=with_sentinels(where, additional_special_tokens, extra_ids),
            legacy=self.legacy,
            add_prefix_space=add_prefix_space,
            **roles,
            **kwargs,
        )

    def _add_known_tokens(self, added: Any) -> None:
        # As in 4.x, the sentinels take the spaces beside them.
        tokens = self.get_sentinel_tokens()
        spread = {
            self.vocab_size - 1 + self._extra_ids - index: AddedToken(
                f"<extra_id_{index}>", lstrip=True, rstrip=True, normalized=False, special=True
            )
            for index in range(len(tokens))
        }
        super()._add_known_tokens(spread | dict(added))

    def get_sentinel_tokens(self) -> list[str]:
        """Return the sentinel tokens among the additional special tokens."""
        return sentinels(self.additional_special_tokens)

    def get_sentinel_token_ids(self) -> list[int]:
        """Return the ids of the sentinel tokens."""
        return [self.convert_tokens_to_ids(token) for token in self.get_sentinel_tokens()]

    def _frame(self, second: bool) -> tuple[list[int], list[int]]:  # noqa: ARG002
        return [], [] if self.eos_token_id is None else [self.eos_token_id]

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Return each text with `</s>` after it; a text that ends with one gets no second one, which is said."""
        row = self._ended(token_ids_0)
        return row if token_ids_1 is None else row + self._ended(token_ids_1)

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """Return 1 for each `</s>` that is added (of a built row: each special token), 0 for tokens of text."""
        if already_has_special_tokens:
            return super().get_special_tokens_mask(token_ids_0, None, True)
        texts = [token_ids_0] if token_ids_1 is None else [token_ids_0, token_ids_1]
        return [int(at >= len(ids)) for ids in texts for at in range(len(self._ended(ids)))]

    def _ended(self, ids: list[int]) -> list[int]:
        if ids and ids[-1] == self.eos_token_id:
            logger.warning_once(f"{type(self).__name__}: a text ends with {self.eos_token} already: no other is added.")
            return ids
        return ids + self._frame(False)[1]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Return the text of `tokens`, a space before each run of special tokens."""
        if tokens and tokens[0].startswith(SPACE) and self.add_prefix_space:
            tokens = [tokens[0][1:], *tokens[1:]]
        special, text, after_special = set(self.all_special_tokens), "", False
        run: list[str] = []
        for token in tokens:
            if token in special:
                text += ("" if after_special else " ") + self.sp_model.decode(run) + token
                run = []
            else:
                run.append(token)
            after_special = token in special
        return str(text + self.sp_model.decode(run)).strip()
