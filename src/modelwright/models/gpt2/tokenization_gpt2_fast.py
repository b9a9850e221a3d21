"""GPT-2's tokenizer on the `tokenizers` library."""

import json
from typing import Any, ClassVar

from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE

from modelwright.core.errors import InputError, RepoError
from modelwright.tokenization.fast_tokenizer import PreTrainedTokenizerFast
from modelwright.tokenization.options import CallOptions, Encoded
from modelwright.tokenization.special_tokens import token_text
from modelwright.tokenization.text import Texts
from modelwright.tokenization.vocabulary_files import read_merges, read_vocabulary_json, target


class GPT2TokenizerFast(PreTrainedTokenizerFast):
    """Byte-level BPE; a row is the text alone, or with `add_bos_token` the bos token before it.

    Before the second text of a pair there is none, as in 4.x; the tokenizer in Python puts one there.
    """

    vocab_files_names: ClassVar[dict[str, str]] = {
        "vocab_file": "vocab.json",
        "merges_file": "merges.txt",
        "tokenizer_file": "tokenizer.json",
    }
    model_input_names = ("input_ids", "attention_mask")

    def __init__(
        self,
        vocab_file: Any = None,
        merges_file: Any = None,
        tokenizer_file: Any = None,
        unk_token: Any = "<|endoftext|>",
        bos_token: Any = "<|endoftext|>",
        eos_token: Any = "<|endoftext|>",
        add_prefix_space: bool | None = None,
        add_bos_token: bool = False,
        **kwargs: Any,
    ) -> None:
        """Read tokenizer.json, or vocabulary and merges.

        add_prefix_space: put a space before each text, None means as tokenizer.json says. Errors: as in GPT2Tokenizer.
        """
        self._files = vocab_file, merges_file
        self._first = token_text("GPT2TokenizerFast: bos_token", bos_token) if add_bos_token else None
        super().__init__(
            tokenizer_file=tokenizer_file,
            unk_token=unk_token,
            bos_token=bos_token,
            eos_token=eos_token,
            add_bos_token=add_bos_token,
            **kwargs,
        )
        splitter = self._backend.pre_tokenizer
        if isinstance(splitter, pre_tokenizers.ByteLevel):
            prefix = splitter.add_prefix_space if add_prefix_space is None else add_prefix_space
            if prefix != splitter.add_prefix_space:
                self._backend.pre_tokenizer = pre_tokenizers.ByteLevel(
                    add_prefix_space=prefix, use_regex=splitter.use_regex
                )
            self.init_kwargs["add_prefix_space"] = prefix

    def _build_backend(self) -> Tokenizer:
        where = type(self).__name__
        if None in self._files:
            raise RepoError(f"{where}: expected vocab.json and merges.txt, or tokenizer.json.")
        vocabulary = read_vocabulary_json(where, self._files[0])
        merges = read_merges(where, self._files[1], vocabulary)
        backend = Tokenizer(BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix=""))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        backend.post_processor = processors.ByteLevel(trim_offsets=False)
        first = self._first
        if first is not None and first in vocabulary:
            backend.post_processor = processors.TemplateProcessing(
                single=f"{first}:0 $A:0",
                pair=f"{first}:0 $A:0 $B:1",
                special_tokens=[(first, vocabulary[first])],
            )
        return backend

    def _encode_texts(self, texts: list[Texts], options: CallOptions) -> Encoded:
        if options.split_words and self.init_kwargs.get("add_prefix_space") is False:
            raise InputError(
                f"{type(self).__name__}: is_split_into_words needs add_prefix_space=True when the tokenizer is made: "
                "words without it would run together."
            )
        return super()._encode_texts(texts, options)

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write vocab.json and merges.txt into the folder `save_directory` and return their paths."""
        paths = tuple(target(save_directory, filename_prefix, name) for name in ("vocab.json", "merges.txt"))
        model = json.loads(self._backend.to_str())["model"]
        paths[0].write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        paths[1].write_text("".join(f"{line}\n" for line in ["#version: 0.2", *merges]), encoding="utf-8")
        return tuple(map(str, paths))
