"""Reformer's tokenizer in Python, that of google/reformer-crime-and-punishment."""

from typing import Any

from modelwright.tokenization.sentencepiece_tokenizer import SentencePieceTokenizer


class ReformerTokenizer(SentencePieceTokenizer):
    """SentencePiece; a row is the text alone, without special tokens."""

    def __init__(
        self,
        vocab_file: Any,
        eos_token: Any = "</s>",
        unk_token: Any = "<unk>",
        additional_special_tokens: Any = None,
        sp_model_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Read the model; sp_model_kwargs and errors: as in SentencePieceTokenizer. There is no pad token."""
        super().__init__(
            vocab_file,
            eos_token=eos_token,
            unk_token=unk_token,
            additional_special_tokens=additional_special_tokens,
            sp_model_kwargs=sp_model_kwargs,
            **kwargs,
        )

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Return the text of `tokens`, special tokens by name."""
        special, text = set(self.all_special_tokens), ""
        run: list[str] = []
        for token in tokens:
            if token in special:
                text += self.sp_model.decode_pieces(run) + token
                run = []
            else:
                run.append(token)
        return str(text + self.sp_model.decode_pieces(run)).strip()
