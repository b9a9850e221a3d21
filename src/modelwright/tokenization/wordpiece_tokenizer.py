"""The tokenizer in Python that BERT and ProphetNet share: words, marks and WordPiece over a file of lines."""

from typing import Any, ClassVar

from modelwright.core.errors import InputError
from modelwright.tokenization.python_tokenizer import PreTrainedTokenizer
from modelwright.tokenization.row_template import RowTemplateMixin
from modelwright.tokenization.vocabulary_files import read_lines, target, write_lines
from modelwright.tokenization.wordpiece import BasicTokenizer, split_word


class WordPieceTokenizer(RowTemplateMixin, PreTrainedTokenizer):
    """WordPiece over the vocabulary file that a subclass names."""

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": "vocab.txt"}

    # Whether a whole text becomes lower case, letter by letter, before added tokens are looked for, or words only.
    _lowers_whole_text: ClassVar[bool] = True

    def __init__(
        self,
        vocab_file: Any,
        do_lower_case: bool = True,
        do_basic_tokenize: bool = True,
        never_split: Any = None,
        unk_token: Any = "[UNK]",
        sep_token: Any = "[SEP]",
        pad_token: Any = "[PAD]",
        mask_token: Any = "[MASK]",
        tokenize_chinese_chars: bool = True,
        strip_accents: bool | None = None,
        clean_up_tokenization_spaces: bool = True,
        **kwargs: Any,
    ) -> None:
        """Read the vocabulary, one token a line.

        do_basic_tokenize: False takes words as they stand between spaces. never_split: words that stay whole.
        tokenize_chinese_chars: each CJK ideograph is a word. strip_accents: None means as do_lower_case.
        Raises RepoError for a missing file, InputError for an empty one.
        """
        self.vocab = read_lines(type(self).__name__, vocab_file)
        if not self.vocab:
            raise InputError(f"{type(self).__name__}: the vocabulary file {vocab_file} is empty.")
        self._tokens = {index: token for token, index in self.vocab.items()}
        self.do_basic_tokenize = do_basic_tokenize
        if self._lowers_whole_text:
            # Words as they stand between spaces keep their letters.
            self.do_lower_case = do_lower_case and do_basic_tokenize
        self._basic = BasicTokenizer(
            lower_case=do_lower_case,
            split_cjk=tokenize_chinese_chars,
            strip_accents=strip_accents,
            never_split=never_split or (),
        )
        super().__init__(
            do_lower_case=do_lower_case,
            do_basic_tokenize=do_basic_tokenize,
            never_split=never_split,
            unk_token=unk_token,
            sep_token=sep_token,
            pad_token=pad_token,
            mask_token=mask_token,
            tokenize_chinese_chars=tokenize_chinese_chars,
            strip_accents=strip_accents,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
            **kwargs,
        )

    @property
    def vocab_size(self) -> int:
        """The number of tokens in the vocabulary file."""
        return len(self.vocab)

    def get_vocab(self) -> dict[str, int]:
        """Return every token with its id, added ones too."""
        return self.vocab | self.added_tokens_encoder

    def _tokenize(self, text: str) -> list[str]:
        unknown = str(self.unk_token)
        if not self.do_basic_tokenize:
            return [piece for word in text.split() for piece in split_word(word, self.vocab, unknown)]
        keep = () if self.split_special_tokens else self.all_special_tokens
        pieces: list[str] = []
        for word in self._basic.tokenize(text, keep):
            pieces += [word] if word in self._basic.never_split else split_word(word, self.vocab, unknown)
        return pieces

    def _convert_token_to_id(self, token: str) -> int | None:
        return self.vocab.get(token, self.vocab.get(self.unk_token or ""))

    def _convert_id_to_token(self, index: int) -> str:
        return self._tokens.get(index, str(self.unk_token))

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Return the text of `tokens`, pieces joined to words."""
        return " ".join(tokens).replace(" ##", "").strip()

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write the vocabulary file into the folder `save_directory` and return its path."""
        path = target(save_directory, filename_prefix, self.vocab_files_names["vocab_file"])
        return (write_lines(path, sorted(self.vocab, key=self.vocab.__getitem__)),)
