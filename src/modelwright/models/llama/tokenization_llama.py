"""Llama's tokenizer in Python."""

from typing import Any, ClassVar

from modelwright.tokenization.added_tokens import as_added_token
from modelwright.tokenization.sentencepiece_tokenizer import SPACE, SentencePieceTokenizer


class LlamaTokenizer(SentencePieceTokenizer):
    """SentencePiece BPE with bytes for what it does not know; `<s>` before each text."""

    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": "tokenizer.model"}

    def __init__(
        self,
        vocab_file: Any,
        unk_token: Any = "<unk>",
        bos_token: Any = "<s>",
        eos_token: Any = "</s>",
        pad_token: Any = None,
        sp_model_kwargs: dict[str, Any] | None = None,
        add_bos_token: bool = True,
        add_eos_token: bool = False,
        spaces_between_special_tokens: bool = False,
        legacy: bool | None = None,
        add_prefix_space: bool = True,
        use_default_system_prompt: bool = False,
        **kwargs: Any,
    ) -> None:
        """Read tokenizer.model.

        add_bos_token, add_eos_token: put `<s>` before and `</s>` after each text. legacy: None and True give the text
        after an added token a space of its own, as 4.x does; False does not. use_default_system_prompt: only kept, it
        belonged to an old chat template. Errors: as in SentencePieceTokenizer.
        """
        self.legacy = True if legacy is None else legacy
        self.add_prefix_space = add_prefix_space
        self.add_bos_token, self.add_eos_token = add_bos_token, add_eos_token
        roles = {"unk_token": unk_token, "bos_token": bos_token, "eos_token": eos_token, "pad_token": pad_token}
        super().__init__(
            vocab_file,
            sp_model_kwargs=sp_model_kwargs,
            add_bos_token=add_bos_token,
            add_eos_token=add_eos_token,
            spaces_between_special_tokens=spaces_between_special_tokens,
            legacy=self.legacy,
            add_prefix_space=add_prefix_space,
            use_default_system_prompt=use_default_system_prompt,
            **{
                name: as_added_token(type(self).__name__, token, special=True) if isinstance(token, str) else token
                for name, token in roles.items()
            },
            **kwargs,
        )

    def _frame(self, second: bool) -> tuple[list[int], list[int]]:  # noqa: ARG002
        first = [self.bos_token_id] if self.add_bos_token and self.bos_token_id is not None else []
        last = [self.eos_token_id] if self.add_eos_token and self.eos_token_id is not None else []
        return first, last

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Return the text of `tokens`, special tokens by name."""
        if tokens and tokens[0].startswith(SPACE) and self.add_prefix_space:
            tokens = [tokens[0][1:], *tokens[1:]]
        special, text, after_special = set(self.all_special_tokens), "", False
        run: list[str] = []
        for index, token in enumerate(tokens):
            if token in special:
                if not after_special and index and self.legacy:
                    text += " "
                text += self.sp_model.decode(run) + token
                run = []
            else:
                if after_special and index == 1 and self.add_prefix_space and not token.startswith(SPACE):
                    text += " "
                run.append(token)
            after_special = token in special
        return str(text + self.sp_model.decode(run))
