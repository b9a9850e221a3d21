"""Reformer's tokenizer on the `tokenizers` library."""

from typing import Any

from modelwright.tokenization.sentencepiece_fast import SentencePieceTokenizerFast


class ReformerTokenizerFast(SentencePieceTokenizerFast):
    """SentencePiece by conversion; a row is the text alone, without special tokens."""

    def __init__(
        self,
        vocab_file: Any = None,
        tokenizer_file: Any = None,
        eos_token: Any = "</s>",
        unk_token: Any = "<unk>",
        additional_special_tokens: Any = None,
        **kwargs: Any,
    ) -> None:
        """Read tokenizer.json, or convert spiece.model; errors as in SentencePieceTokenizerFast."""
        super().__init__(
            vocab_file,
            tokenizer_file,
            eos_token=eos_token,
            unk_token=unk_token,
            additional_special_tokens=additional_special_tokens,
            **kwargs,
        )
