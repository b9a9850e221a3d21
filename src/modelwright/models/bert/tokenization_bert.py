"""BERT's tokenizer in Python."""

from typing import Any, ClassVar

from modelwright.tokenization.wordpiece_tokenizer import WordPieceTokenizer


class BertTokenizer(WordPieceTokenizer):
    """WordPiece; a row is `[CLS] text [SEP]` or `[CLS] text [SEP] text [SEP]`."""

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": "vocab.txt"}

    def __init__(self, vocab_file: Any, *args: Any, cls_token: Any = "[CLS]", **kwargs: Any) -> None:
        """Read the vocabulary; keywords and errors are those of WordPieceTokenizer."""
        super().__init__(vocab_file, *args, cls_token=cls_token, **kwargs)

    def _frame(self, second: bool) -> tuple[list[int], list[int]]:
        before = [] if second or self.cls_token_id is None else [self.cls_token_id]
        return before, [] if self.sep_token_id is None else [self.sep_token_id]
