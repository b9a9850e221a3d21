"""The tokenizer in Python that T5, Reformer and Llama share: the `sentencepiece` library over a model file."""

from collections.abc import Sequence
from typing import Any, ClassVar

from modelwright.core.errors import ConfigError, InputError
from modelwright.tokenization.python_tokenizer import PreTrainedTokenizer
from modelwright.tokenization.row_template import RowTemplateMixin
from modelwright.tokenization.sentencepiece_file import NO_DUMMY_PREFIX
from modelwright.tokenization.vocabulary_files import copy_file, target, vocabulary_path

SPACE = "▁"


class SentencePieceTokenizer(RowTemplateMixin, PreTrainedTokenizer):
    """SentencePiece over the model file that a subclass names."""

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": "spiece.model"}
    model_input_names: Sequence[str] = ("input_ids", "attention_mask")
    # The text before an added token is part of the same sentence; False makes each piece of text a sentence.
    legacy = True
    add_prefix_space = True

    def __init__(self, vocab_file: Any, *, sp_model_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Read the model.

        sp_model_kwargs: of `sentencepiece.SentencePieceProcessor`; `enable_sampling`, `nbest_size` and `alpha` draw
        one of several segmentations for each text. Raises RepoError, ConfigError, InputError.
        """
        self.vocab_file = str(vocabulary_path(type(self).__name__, vocab_file))
        self.sp_model_kwargs = dict(sp_model_kwargs or {})
        self.sp_model = self._load()
        super().__init__(sp_model_kwargs=self.sp_model_kwargs, **kwargs)

    def _load(self) -> Any:
        import sentencepiece

        where = type(self).__name__
        try:
            processor = sentencepiece.SentencePieceProcessor(**self.sp_model_kwargs)
        except TypeError as error:
            raise InputError(f"{where}: sp_model_kwargs={self.sp_model_kwargs!r}: {error}.") from error
        with open(self.vocab_file, "rb") as file:  # noqa: PTH123
            data = file.read()
        try:
            processor.LoadFromSerializedProto(data if self.legacy else data + NO_DUMMY_PREFIX)
        except RuntimeError as error:
            raise ConfigError(f"{self.vocab_file}: expected a SentencePiece model: {error}.") from error
        return processor

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "sp_model": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.sp_model = self._load()

    @property
    def vocab_size(self) -> int:
        """The number of pieces of the model."""
        return int(self.sp_model.get_piece_size())

    def get_vocab(self) -> dict[str, int]:
        """Return every token with its id, added ones too."""
        return {self._convert_id_to_token(i): i for i in range(self.vocab_size)} | self.added_tokens_encoder

    def tokenize(self, text: str, **kwargs: Any) -> list[str]:
        """Return the tokens of `text` as strings, no special tokens added."""
        if self.legacy or not text:
            return super().tokenize(text, **kwargs)
        text = text.replace(SPACE, " ")
        tokens = super().tokenize(SPACE + text if self.add_prefix_space else text, **kwargs)
        alone = len(tokens) > 1 and tokens[0] == SPACE and tokens[1] in self.all_special_tokens
        return tokens[1:] if alone else tokens

    def _tokenize(self, text: str) -> list[str]:
        if self.legacy or not text.startswith((SPACE, " ")):
            return self._pieces(text)
        # SentencePiece drops a leading space, but not one after a token: encode after the unknown token and drop that.
        unknown = str(self.unk_token)
        tokens, width = self._pieces(unknown + text), len(self._pieces(unknown))
        return tokens[width:] if len(tokens) >= width else tokens

    def _pieces(self, text: str) -> list[str]:
        try:
            pieces: list[str] = self.sp_model.encode(text, out_type=str)
        except UnicodeEncodeError as error:
            raise InputError(f"{type(self).__name__}: the text {text[:40]!r} is not valid UTF-8: {error}.") from error
        return pieces

    def _convert_token_to_id(self, token: str) -> int | None:
        return int(self.sp_model.piece_to_id(token))

    def _convert_id_to_token(self, index: int) -> str:
        return str(self.sp_model.IdToPiece(index))

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Copy the model file into the folder `save_directory` and return its path."""
        path = target(save_directory, filename_prefix, self.vocab_files_names["vocab_file"])
        return (copy_file(self.vocab_file, path),)
