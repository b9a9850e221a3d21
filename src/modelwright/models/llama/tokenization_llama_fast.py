"""Llama's tokenizer on the `tokenizers` library."""

from typing import Any, ClassVar

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers import models as backends

from modelwright.core.errors import ConfigError
from modelwright.tokenization.sentencepiece_fast import SPACE, SentencePieceTokenizerFast, merges_of
from modelwright.tokenization.sentencepiece_file import BPE, SentencePieceFile


class LlamaTokenizerFast(SentencePieceTokenizerFast):
    """BPE with bytes for what it does not know; `<s>` before each text."""

    vocab_files_names: ClassVar[dict[str, str]] = {
        "vocab_file": "tokenizer.model",
        "tokenizer_file": "tokenizer.json",
    }
    padding_side = "left"

    def __init__(
        self,
        vocab_file: Any = None,
        tokenizer_file: Any = None,
        unk_token: Any = "<unk>",
        bos_token: Any = "<s>",
        eos_token: Any = "</s>",
        add_bos_token: bool = True,
        add_eos_token: bool = False,
        legacy: bool | None = None,
        add_prefix_space: bool | None = None,
        use_default_system_prompt: bool = False,
        **kwargs: Any,
    ) -> None:
        """Read tokenizer.json, or convert tokenizer.model.

        add_bos_token, add_eos_token: put `<s>` before and `</s>` after each text. legacy: None and True give the text
        after an added token a space of its own, as 4.x does; False does not. add_prefix_space: whether a text begins
        with a space, None means True. use_default_system_prompt: only kept, it belonged to an old chat template.
        Errors: as in SentencePieceTokenizerFast.
        """
        self.legacy = True if legacy is None else legacy
        self.add_prefix_space = add_prefix_space is not False
        super().__init__(
            vocab_file,
            tokenizer_file,
            unk_token=unk_token,
            bos_token=bos_token,
            eos_token=eos_token,
            add_bos_token=add_bos_token,
            add_eos_token=add_eos_token,
            legacy=self.legacy,
            use_default_system_prompt=use_default_system_prompt,
            **({} if add_prefix_space is None else {"add_prefix_space": add_prefix_space}),
            **kwargs,
        )
        self._add_bos, self._add_eos = add_bos_token, add_eos_token
        self.update_post_processor()

    def _convert(self, file: SentencePieceFile) -> Tokenizer:
        if file.model_type != BPE:
            raise ConfigError(f"{self._where()}: expected a BPE model: read another one with T5TokenizerFast.")
        if len(file.pieces) < 3:
            raise ConfigError(f"{self._where()}: expected three special pieces, found {len(file.pieces)} pieces.")
        vocabulary = [(piece, score) for piece, score, _ in file.pieces]
        # The scores of the three special pieces must not rank a merge.
        vocabulary[:3] = [(piece, 0.0) for piece, _ in vocabulary[:3]]
        ids = {piece: index for index, (piece, _) in enumerate(vocabulary)}
        backend = Tokenizer(
            backends.BPE(ids, merges_of(vocabulary), unk_token=vocabulary[0][0], fuse_unk=True, byte_fallback=True)
        )
        specials = [AddedToken(piece, normalized=False, special=True) for piece, _ in vocabulary[:3]]
        backend.add_special_tokens(specials)
        steps: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        if self.add_prefix_space:
            steps.append(decoders.Strip(content=" ", left=1))
        backend.decoder = decoders.Sequence(steps)
        if self.legacy:
            prepend = [normalizers.Prepend(SPACE)] if self.add_prefix_space else []
            backend.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", SPACE)])
        else:
            scheme = "first" if self.add_prefix_space else "never"
            backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme, split=False)
        return backend

    @property
    def add_bos_token(self) -> bool:
        """Whether `<s>` is put before each text; setting it changes the post-processor."""
        return self._add_bos

    @add_bos_token.setter
    def add_bos_token(self, value: bool) -> None:
        self._add_bos = self.init_kwargs["add_bos_token"] = value
        self.update_post_processor()

    @property
    def add_eos_token(self) -> bool:
        """Whether `</s>` is put after each text; setting it changes the post-processor."""
        return self._add_eos

    @add_eos_token.setter
    def add_eos_token(self, value: bool) -> None:
        self._add_eos = self.init_kwargs["add_eos_token"] = value
        self.update_post_processor()

    def update_post_processor(self) -> None:
        """Give the backend the special tokens around each text that `add_bos_token` and `add_eos_token` ask for."""
        bos, eos = self.bos_token, self.eos_token
        for name, wanted, token in (("bos", self._add_bos, bos), ("eos", self._add_eos, eos)):
            if wanted and token is None:
                raise ConfigError(f"{type(self).__name__}: add_{name}_token=True needs a {name}_token, got None.")
        before = f"{bos}:{{0}} " if self._add_bos else ""
        after = f" {eos}:{{0}}" if self._add_eos else ""
        first = f"{before}$A:{{0}}{after}".format(0)
        second = f"{before}$B:{{0}}{after}".format(1)
        used = {str(bos): self.bos_token_id} if self._add_bos else {}
        used |= {str(eos): self.eos_token_id} if self._add_eos else {}
        self._backend.post_processor = processors.TemplateProcessing(
            single=first, pair=f"{first} {second}", special_tokens=list(used.items())
        )
