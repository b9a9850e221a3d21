"""T5's tokenizer on the `tokenizers` library."""

from typing import Any

from tokenizers import Tokenizer, processors

from modelwright.models.t5.extra_ids import sentinels, with_sentinels
from modelwright.tokenization.sentencepiece_fast import SentencePieceTokenizerFast, convert_model
from modelwright.tokenization.sentencepiece_file import SentencePieceFile
from modelwright.tokenization.special_tokens import token_text


class T5TokenizerFast(SentencePieceTokenizerFast):
    """Unigram with `</s>` after each text, and sentinel tokens behind the vocabulary, counted downwards."""

    def __init__(
        self,
        vocab_file: Any = None,
        tokenizer_file: Any = None,
        eos_token: Any = "</s>",
        unk_token: Any = "<unk>",
        pad_token: Any = "<pad>",
        extra_ids: int = 100,
        additional_special_tokens: Any = None,
        add_prefix_space: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Read tokenizer.json, or convert the SentencePiece model.

        extra_ids: the number of sentinels `<extra_id_0>`, ... add_prefix_space: whether a text begins with a space,
        None means True. Errors: as in SentencePieceTokenizerFast.
        """
        self._extra_ids, self._prefix_space = extra_ids, add_prefix_space is not False
        self._end = token_text("T5TokenizerFast: eos_token", eos_token) or "</s>"
        super().__init__(
            vocab_file,
            tokenizer_file,
            eos_token=eos_token,
            unk_token=unk_token,
            pad_token=pad_token,
            extra_ids=extra_ids,
            additional_special_tokens=with_sentinels(type(self).__name__, additional_special_tokens, extra_ids),
            **({} if add_prefix_space is None else {"add_prefix_space": add_prefix_space}),
            **kwargs,
        )

    def _convert(self, file: SentencePieceFile) -> Tokenizer:
        vocabulary = [(piece, score) for piece, score, _ in file.pieces]
        vocabulary += [(f"<extra_id_{index}>", 0.0) for index in reversed(range(self._extra_ids))]
        backend = convert_model(self._where(), file, vocabulary, "always" if self._prefix_space else "never")
        end = self._end
        if (index := backend.token_to_id(end)) is not None:
            backend.post_processor = processors.TemplateProcessing(
                single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, index)]
            )
        return backend

    def get_sentinel_tokens(self) -> list[str]:
        """Return the sentinel tokens among the additional special tokens."""
        return sentinels(self.additional_special_tokens)

    def get_sentinel_token_ids(self) -> list[Any]:
        """Return the ids of the sentinel tokens."""
        return [self.convert_tokens_to_ids(token) for token in self.get_sentinel_tokens()]
