"""BERT's tokenizer on the `tokenizers` library."""

from typing import Any, ClassVar

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import WordPiece

from modelwright.core.errors import RepoError
from modelwright.tokenization.fast_tokenizer import PreTrainedTokenizerFast
from modelwright.tokenization.special_tokens import token_text
from modelwright.tokenization.vocabulary_files import read_lines, target, write_lines


class BertTokenizerFast(PreTrainedTokenizerFast):
    """WordPiece; a row is `[CLS] text [SEP]` or `[CLS] text [SEP] text [SEP]`."""

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": "vocab.txt", "tokenizer_file": "tokenizer.json"}

    def __init__(
        self,
        vocab_file: Any = None,
        tokenizer_file: Any = None,
        do_lower_case: bool | None = None,
        unk_token: Any = "[UNK]",
        sep_token: Any = "[SEP]",
        pad_token: Any = "[PAD]",
        cls_token: Any = "[CLS]",
        mask_token: Any = "[MASK]",
        tokenize_chinese_chars: bool | None = None,
        strip_accents: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Read tokenizer.json, or a vocabulary of one token a line.

        do_lower_case, tokenize_chinese_chars: None means as tokenizer.json says, or True without one. strip_accents:
        None means as do_lower_case. Raises RepoError when there is neither file.
        """
        self._vocab_file = vocab_file
        self._roles = {
            name: token_text(name, token) or ""
            for name, token in (("unk", unk_token), ("sep", sep_token), ("cls", cls_token))
        }
        if tokenizer_file is None and kwargs.get("tokenizer_object") is None:
            kwargs.setdefault("clean_up_tokenization_spaces", True)  # as the tokenizer in Python, whose file this is
        super().__init__(
            tokenizer_file=tokenizer_file,
            unk_token=unk_token,
            sep_token=sep_token,
            pad_token=pad_token,
            cls_token=cls_token,
            mask_token=mask_token,
            **kwargs,
        )
        normalizer = self._pipeline.normalizer
        if normalizer is None:
            normalizer = normalizers.BertNormalizer()
        if isinstance(normalizer, normalizers.BertNormalizer):
            given = {
                "lowercase": do_lower_case,
                "strip_accents": strip_accents,
                "handle_chinese_chars": tokenize_chinese_chars,
            }
            state = {name: getattr(normalizer, name) for name in (*given, "clean_text")}
            wanted = state | {name: value for name, value in given.items() if value is not None}
            if wanted != state or self._pipeline.normalizer is None:
                self._pipeline.normalizer = normalizers.BertNormalizer(**wanted)
            self.init_kwargs |= {
                "do_lower_case": wanted["lowercase"],
                "strip_accents": wanted["strip_accents"],
                "tokenize_chinese_chars": wanted["handle_chinese_chars"],
            }

    def _build_backend(self) -> Tokenizer:
        if self._vocab_file is None:
            raise RepoError(f"{type(self).__name__}: expected vocab.txt or tokenizer.json, got neither.")
        vocabulary = read_lines(type(self).__name__, self._vocab_file)
        backend = Tokenizer(WordPiece(vocabulary, unk_token=self._roles["unk"], max_input_chars_per_word=100))
        backend.normalizer = normalizers.BertNormalizer()
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece(prefix="##")
        first, last = self._roles["cls"], self._roles["sep"]
        if first in vocabulary and last in vocabulary:
            backend.post_processor = processors.TemplateProcessing(
                single=f"{first}:0 $A:0 {last}:0",
                pair=f"{first}:0 $A:0 {last}:0 $B:1 {last}:1",
                special_tokens=[(first, vocabulary[first]), (last, vocabulary[last])],
            )
        return backend

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write vocab.txt into the folder `save_directory` and return its path."""
        vocabulary = self._backend.get_vocab(with_added_tokens=False)
        path = target(save_directory, filename_prefix, self.vocab_files_names["vocab_file"])
        return (write_lines(path, sorted(vocabulary, key=vocabulary.__getitem__)),)
