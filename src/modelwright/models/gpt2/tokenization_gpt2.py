"""GPT-2's tokenizer in Python."""

import json
from typing import Any, ClassVar

from tokenizers import pre_tokenizers

from modelwright.core.errors import InputError, check_choice
from modelwright.models.gpt2.byte_bpe import ByteBpe, byte_letters
from modelwright.tokenization.added_tokens import as_added_token
from modelwright.tokenization.python_tokenizer import PreTrainedTokenizer
from modelwright.tokenization.row_template import RowTemplateMixin
from modelwright.tokenization.vocabulary_files import read_merges, read_vocabulary_json, target, write_lines

_LETTERS = byte_letters()
_BYTES = {letter: byte for byte, letter in _LETTERS.items()}


class GPT2Tokenizer(RowTemplateMixin, PreTrainedTokenizer):
    """Byte-level BPE; a row is the text alone, or with `add_bos_token` the bos token before each text."""

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": "vocab.json", "merges_file": "merges.txt"}
    model_input_names = ("input_ids", "attention_mask")

    def __init__(
        self,
        vocab_file: Any,
        merges_file: Any,
        errors: str = "replace",
        unk_token: Any = "<|endoftext|>",
        bos_token: Any = "<|endoftext|>",
        eos_token: Any = "<|endoftext|>",
        pad_token: Any = None,
        add_prefix_space: bool = False,
        add_bos_token: bool = False,
        **kwargs: Any,
    ) -> None:
        """Read vocabulary and merges.

        errors: what `decode` does with bytes that are not UTF-8: "replace", "strict" or "ignore". add_prefix_space:
        put a space before each text, so that its first word is a word like any other.
        Raises RepoError for a missing file, ConfigError for one that is damaged or does not fit the other.
        """
        where = type(self).__name__
        check_choice(f"{where}: errors", errors, ("replace", "strict", "ignore"))
        self.encoder = read_vocabulary_json(where, vocab_file)
        self._tokens = {index: token for token, index in self.encoder.items()}
        self._merges = read_merges(where, merges_file, self.encoder)
        self._bpe = ByteBpe(self._merges)
        self.errors, self.add_prefix_space, self.add_bos_token = errors, add_prefix_space, add_bos_token
        roles = {"unk_token": unk_token, "bos_token": bos_token, "eos_token": eos_token, "pad_token": pad_token}
        super().__init__(
            errors=errors,
            add_prefix_space=add_prefix_space,
            add_bos_token=add_bos_token,
            **{
                name: as_added_token(where, token, special=True) if isinstance(token, str) else token
                for name, token in roles.items()
            },
            **kwargs,
        )

    @property
    def vocab_size(self) -> int:
        """The number of tokens in the vocabulary file."""
        return len(self.encoder)

    def get_vocab(self) -> dict[str, int]:
        """Return every token with its id, added ones too."""
        return self.encoder | self.added_tokens_encoder

    def prepare_for_tokenization(
        self, text: str, is_split_into_words: bool = False, add_prefix_space: bool | None = None
    ) -> str:
        """Return `text` with a space before it, for one of several words or if that is wanted."""
        prefix = self.add_prefix_space if add_prefix_space is None else add_prefix_space
        return f" {text}" if is_split_into_words or prefix else text

    def _frame(self, second: bool) -> tuple[list[int], list[int]]:  # noqa: ARG002
        return [self.bos_token_id] if self.add_bos_token and self.bos_token_id is not None else [], []

    def _tokenize(self, text: str) -> list[str]:
        if not text.isascii() and any(0xD800 <= ord(letter) < 0xE000 for letter in text):
            raise InputError(f"{type(self).__name__}: the text {text[:40]!r} holds half of a surrogate pair.")
        words = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
        return [token for word, _ in words for token in self._bpe.split(word)]

    def _convert_token_to_id(self, token: str) -> int | None:
        return self.encoder.get(token, self.encoder.get(self.unk_token or ""))

    def _convert_id_to_token(self, index: int) -> str:
        if index not in self._tokens:
            raise InputError(f"{type(self).__name__}: the vocabulary has no token with the id {index}.")
        return self._tokens[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Return the text of `tokens`; `errors` says what becomes of bytes that are not UTF-8."""
        return bytes(_BYTES[letter] for letter in "".join(tokens)).decode("utf-8", self.errors)

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write vocabulary and merges into the folder `save_directory` and return their paths."""
        vocabulary, merges = (target(save_directory, filename_prefix, n) for n in self.vocab_files_names.values())
        vocabulary.write_text(json.dumps(self.encoder, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        write_lines(merges, ["#version: 0.2", *(" ".join(merge) for merge in self._merges)])
        return str(vocabulary), str(merges)
