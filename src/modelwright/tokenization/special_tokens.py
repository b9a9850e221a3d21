"""The special tokens of a tokenizer: attributes such as `pad_token`, and their ids."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from tokenizers import AddedToken

from modelwright.core.errors import InputError
from modelwright.tokenization.added_tokens import as_added_token, token_to_json

SPECIAL_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def token_text(where: str, value: Any) -> str | None:
    """Return the text of a special token: a string, an object with `content`, or its form in a JSON file.

    Raises InputError for anything else.
    """
    content = value.get("content") if isinstance(value, Mapping) else getattr(value, "content", value)
    if content is None or isinstance(content, str):
        return content
    raise InputError(f"{where}: expected a string or an AddedToken, got {value!r}.")


class _Token:
    """A special token as text, None when the tokenizer has no such token."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, owner: None, cls: type) -> "_Token": ...
    @overload
    def __get__(self, owner: "SpecialTokensMixin", cls: type) -> str | None: ...
    def __get__(self, owner: "SpecialTokensMixin | None", cls: type) -> "str | _Token | None":
        return self if owner is None else owner._special_tokens.get(self.name)

    def __set__(self, owner: "SpecialTokensMixin", value: Any) -> None:
        owner._special_tokens[self.name] = owner._remember(f"{type(owner).__name__}.{self.name}", value)


class _TokenId:
    """The id of a special token, None when the tokenizer has no such token; setting it sets the token."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.token_name = name.removesuffix("_id")

    @overload
    def __get__(self, owner: None, cls: type) -> "_TokenId": ...
    @overload
    def __get__(self, owner: "SpecialTokensMixin", cls: type) -> int | None: ...
    def __get__(self, owner: "SpecialTokensMixin | None", cls: type) -> "int | _TokenId | None":
        if owner is None:
            return self
        token = owner._special_tokens.get(self.token_name)
        return None if token is None else owner._token_id(token)

    def __set__(self, owner: "SpecialTokensMixin", value: int | None) -> None:
        owner._special_tokens[self.token_name] = None if value is None else owner._id_token(value)


class SpecialTokensMixin:
    """Special tokens by role; a subclass says how a token and its id belong together.

    Beside the roles that all tokenizers know, one has roles of its own, `extra_special_tokens`: for {"image_token":
    "<image>"} there are the attributes `image_token` and `image_token_id`.
    """

    # The roles; those of `extra_special_tokens` follow in an instance.
    SPECIAL_TOKENS_ATTRIBUTES: Sequence[str] = (*SPECIAL_TOKEN_NAMES, "additional_special_tokens")
    # The segment of padding.
    pad_token_type_id = 0

    _special_tokens: dict[str, str | None]
    _additional_special_tokens: list[str]
    # The special tokens that were given with flags, by text.
    _flagged: dict[str, AddedToken]

    bos_token, eos_token, unk_token, sep_token = _Token(), _Token(), _Token(), _Token()
    pad_token, cls_token, mask_token = _Token(), _Token(), _Token()
    bos_token_id, eos_token_id, unk_token_id, sep_token_id = _TokenId(), _TokenId(), _TokenId(), _TokenId()
    pad_token_id, cls_token_id, mask_token_id = _TokenId(), _TokenId(), _TokenId()

    if not TYPE_CHECKING:  # a type checker would take any misspelt attribute

        def __getattr__(self, name: str) -> Any:
            role = name.removesuffix("_id")
            if role not in self._extra_roles():
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}.", name=name, obj=self)
            token = self._special_tokens[role]
            return token if role == name or token is None else self._token_id(token)

    def __setattr__(self, name: str, value: Any) -> None:
        role = name.removesuffix("_id")
        if role not in self._extra_roles():
            super().__setattr__(name, value)
        elif role == name:
            self._special_tokens[role] = self._remember(f"{type(self).__name__}.{role}", value)
        else:
            self._special_tokens[role] = None if value is None else self._id_token(value)

    def _extra_roles(self) -> Sequence[str]:
        roles: Sequence[str] = self.__dict__.get("SPECIAL_TOKENS_ATTRIBUTES", ())
        return roles[len(type(self).SPECIAL_TOKENS_ATTRIBUTES) :]

    @property
    def extra_special_tokens(self) -> dict[str, str | None]:
        """The special tokens in roles of this tokenizer's own, by role."""
        return {role: self._special_tokens[role] for role in self._extra_roles()}

    def _set_extra_special_tokens(self, value: Mapping[str, Any]) -> None:
        where = f"{type(self).__name__}: extra_special_tokens"
        if not isinstance(value, Mapping):
            raise InputError(
                f"{where}: expected names and tokens, such as {{'image_token': '<image>'}}, got {value!r}. Tokens "
                "without a name are additional_special_tokens."
            )
        for role, token in value.items():
            if hasattr(type(self), role) or role in self.__dict__:
                raise InputError(f"{where}: {role!r} is an attribute of every tokenizer; choose another name.")
            self._special_tokens[role] = self._remember(f"{where}: {role}", token)
        self.SPECIAL_TOKENS_ATTRIBUTES = (*self.SPECIAL_TOKENS_ATTRIBUTES, *value)

    def _remember(self, where: str, value: Any) -> str | None:
        """Return the text of a special token and keep the flags that it was given with."""
        text = token_text(where, value)
        if text is not None and not isinstance(value, str):
            given = isinstance(value, (AddedToken, Mapping))
            self._flagged[text] = as_added_token(where, value if given else text, special=True)
        return text

    def _special_token(self, text: str) -> AddedToken:
        """Return the special token `text` with its flags."""
        found = self._flagged.get(text)
        return as_added_token(type(self).__name__, text, special=True) if found is None else found

    def _token_id(self, token: str) -> int | None:
        raise NotImplementedError

    def _id_token(self, index: int) -> str:
        raise NotImplementedError

    @property
    def additional_special_tokens(self) -> list[str]:
        """Special tokens without a role of their own."""
        return self._additional_special_tokens

    @additional_special_tokens.setter
    def additional_special_tokens(self, value: Any) -> None:
        where = f"{type(self).__name__}.additional_special_tokens"
        if not isinstance(value, (list, tuple)) and value is not None:
            raise InputError(f"{where}: expected a list of tokens, got {value!r}.")
        self._additional_special_tokens = [text for each in value or () if (text := self._remember(where, each))]

    @property
    def additional_special_tokens_ids(self) -> list[int | None]:
        """The ids of `additional_special_tokens`."""
        return [self._token_id(token) for token in self._additional_special_tokens]

    @property
    def special_tokens_map(self) -> dict[str, str | list[str]]:
        """The special tokens that are set, by role."""
        values = {role: getattr(self, role) for role in self.SPECIAL_TOKENS_ATTRIBUTES}
        return {role: list(value) if isinstance(value, list) else value for role, value in values.items() if value}

    @property
    def special_tokens_map_extended(self) -> dict[str, Any]:
        """`special_tokens_map` with an AddedToken in place of each text that was given with flags."""
        return {
            role: self._flagged.get(value, value)
            if isinstance(value, str)
            else [self._flagged.get(each, each) for each in value]
            for role, value in self.special_tokens_map.items()
        }

    @property
    def all_special_tokens_extended(self) -> list[str | AddedToken]:
        """`all_special_tokens` with an AddedToken in place of each text that was given with flags."""
        return [self._flagged.get(text, text) for text in self.all_special_tokens]

    def _special_tokens_to_save(self) -> dict[str, Any]:
        """Return the special tokens by role, as special_tokens_map.json has them: with flags where they have any."""
        saved: dict[str, Any] = {}
        for role, value in self.special_tokens_map.items():
            saved[role] = self._saved(value) if isinstance(value, str) else [self._saved(each) for each in value]
        return saved

    def _saved(self, text: str) -> Any:
        if text not in self._flagged:
            return text
        flags = token_to_json(self._flagged[text])
        del flags["special"]
        return flags

    @property
    def all_special_tokens(self) -> list[str]:
        """Every special token once, in the order of the roles."""
        values = self.special_tokens_map.values()
        return list(dict.fromkeys(text for value in values for text in ([value] if isinstance(value, str) else value)))

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of `all_special_tokens`; a token that the vocabulary lacks has none."""
        return [index for token in self.all_special_tokens if (index := self._token_id(token)) is not None]
