"""ProphetNet's tokenizer; there is none on the `tokenizers` library."""

from typing import Any, ClassVar

from modelwright.tokenization.wordpiece_tokenizer import WordPieceTokenizer


class ProphetNetTokenizer(WordPieceTokenizer):
    """WordPiece; a row is `text [SEP]` or `text [SEP] text [SEP]`, and `[X_SEP]` stands between parts of a summary."""

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": "prophetnet.tokenizer"}
    _lowers_whole_text = False
    model_input_names = ("input_ids", "attention_mask")

    def __init__(self, vocab_file: Any, *args: Any, x_sep_token: str = "[X_SEP]", **kwargs: Any) -> None:
        """Read the vocabulary; keywords and errors are those of WordPieceTokenizer."""
        super().__init__(vocab_file, *args, x_sep_token=x_sep_token, **kwargs)
        self.x_sep_token = x_sep_token

    def _frame(self, second: bool) -> tuple[list[int], list[int]]:  # noqa: ARG002
        return [], [] if self.sep_token_id is None else [self.sep_token_id]
