"""A tokenizer's files: `tokenizer_config.json`, `special_tokens_map.json` and the vocabulary files of a subclass."""

import inspect
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

from tokenizers import AddedToken

from modelwright.config.json_file import read_json, write_json, write_text
from modelwright.core.errors import InputError, RepoError, reject_unknown
from modelwright.core.logging import get_logger
from modelwright.hub.custom_code import AutoClassMixin, code_to_save
from modelwright.hub.download import take_download
from modelwright.hub.names import (
    ADDED_TOKENS_NAME,
    CHAT_TEMPLATE_FOLDER,
    CHAT_TEMPLATE_NAME,
    SPECIAL_TOKENS_MAP_NAME,
    TOKENIZER_CONFIG_NAME,
    TOKENIZER_NAME,
)
from modelwright.hub.open import open_repo
from modelwright.hub.publish import PushToHubMixin, publish, take_push
from modelwright.hub.repo import Repo
from modelwright.tokenization.added_tokens import token_to_json
from modelwright.tokenization.config_file import read_tokenizer_config
from modelwright.tokenization.special_tokens import SPECIAL_TOKEN_NAMES, SpecialTokensMixin
from modelwright.tokenization.strategies import NO_LIMIT, UNLIMITED_LENGTH

logger = get_logger(__name__)


SHARED_KEYWORDS = (
    *SPECIAL_TOKEN_NAMES, "additional_special_tokens", "extra_special_tokens", "model_max_length", "padding_side",
    "truncation_side", "model_input_names", "clean_up_tokenization_spaces", "name_or_path", "added_tokens_decoder",
    "chat_template", "split_special_tokens",
)  # fmt: skip
# BERT's, which scripts write for every family: saved, and without effect where the class does not name them.
BERT_KEYWORDS = ("do_lower_case", "clean_text", "tokenize_chinese_chars", "strip_accents")


class TokenizerFilesMixin(SpecialTokensMixin, AutoClassMixin, PushToHubMixin):
    """`from_pretrained` and `save_pretrained` of every tokenizer."""

    # The constructor's keyword for each vocabulary file, and the file's name.
    vocab_files_names: ClassVar[dict[str, str]] = {}

    model_max_length: int
    padding_side: str
    truncation_side: str
    clean_up_tokenization_spaces: bool
    name_or_path: str
    split_special_tokens: bool
    chat_template: str | dict[str, str] | None
    init_kwargs: dict[str, Any]
    is_fast: ClassVar[bool] = False
    # What a loaded tokenizer_config.json held that this class has no use for: written back when saved.
    _unused_config: Mapping[str, Any] = MappingProxyType({})
    _default_auto_class: ClassVar[str] = "AutoTokenizer"

    @classmethod
    def _constructor_keywords(cls) -> tuple[str, ...]:
        """Return every keyword that the constructors of this class and of its bases name."""
        names = set(SHARED_KEYWORDS)
        for each in cls.__mro__:
            if "__init__" in each.__dict__ and each is not object:
                names.update(_parameters(vars(each)["__init__"]))
        return tuple(sorted(names - {"self", "args", "kwargs"}))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        subfolder: str = "",
        from_slow: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Read a tokenizer from a folder or hub repository; `kwargs` override what its files say.

        The keywords about downloads are those of `PretrainedConfig.from_pretrained`. from_slow: make a fast tokenizer
        from the slow one's vocabulary files, even if there is a tokenizer.json.
        Raises RepoError when the folder or a file is missing, ConfigError for a damaged file, UnknownArgumentError.
        """
        where = f"{cls.__name__}.from_pretrained"
        download, kwargs = take_download(where, kwargs)
        known = cls._constructor_keywords()
        reject_unknown(where, kwargs, (*known, *BERT_KEYWORDS))
        repo = open_repo(pretrained_model_name_or_path, subfolder=subfolder, download=download)
        stored = cls._read_config(repo)
        unused = {name: value for name, value in stored.items() if name not in known}
        options = {name: value for name, value in stored.items() if name in known}
        options |= cls._vocabulary_paths(repo)
        if from_slow:
            options.pop("tokenizer_file", None)
        options["name_or_path"] = str(pretrained_model_name_or_path)
        tokenizer = cls(**(options | kwargs))
        tokenizer._unused_config = unused
        return tokenizer

    @classmethod
    def _read_config(cls, repo: Repo) -> dict[str, Any]:
        """Return the constructor's options in the two JSON files; the special tokens of the first one win."""
        has_vocabulary = any(repo.has(file) for file in cls.vocab_files_names.values())
        if not repo.has(TOKENIZER_CONFIG_NAME) and not has_vocabulary:
            own = [file for file in cls.vocab_files_names.values() if file != TOKENIZER_NAME]
            expected = " or ".join([TOKENIZER_CONFIG_NAME, *own, *([TOKENIZER_NAME] if cls.is_fast else [])])
            hint = "" if cls.vocab_files_names else f" A new one needs no file: {cls.__name__}()."
            raise RepoError(f"{repo}: expected {expected}, but there is no such file.{hint}")
        stored = read_tokenizer_config(repo)
        if repo.has(SPECIAL_TOKENS_MAP_NAME):
            special = read_json(repo.path(SPECIAL_TOKENS_MAP_NAME))
            # The config has the text only; the map also has the flags.
            flagged = {role: value for role, value in special.items() if _text_of(value) == _text_of(stored.get(role))}
            stored = special | stored | flagged
        # What 5.x calls the additional tokens, and the named ones.
        if isinstance(extra := stored.get("extra_special_tokens"), list):
            stored["additional_special_tokens"] = [*stored.get("additional_special_tokens", ()), *extra]
            del stored["extra_special_tokens"]
        if named := stored.pop("model_specific_special_tokens", None):
            stored["extra_special_tokens"] = {**stored.get("extra_special_tokens", {}), **named}
        if "added_tokens_decoder" not in stored and (added := cls._added_tokens(repo)):
            stored["added_tokens_decoder"] = added
        if templates := _chat_templates(repo):
            stored["chat_template"] = templates["default"] if templates.keys() == {"default"} else templates
        elif isinstance(stored.get("chat_template"), list):
            stored["chat_template"] = {each["name"]: each["template"] for each in stored["chat_template"]}
        saved_as = stored.pop("tokenizer_class", None)
        if saved_as is not None and saved_as.removesuffix("Fast") != cls.__name__.removesuffix("Fast"):
            logger.warning_once(
                f"{repo}: {TOKENIZER_CONFIG_NAME} names the class {saved_as}, but {cls.__name__} reads it: ids "
                "may not be those that the model was trained with."
            )
        limit = stored.get("model_max_length")
        if limit is not None and limit >= NO_LIMIT:
            stored["model_max_length"] = UNLIMITED_LENGTH
        return stored

    @classmethod
    def _added_tokens(cls, repo: Repo) -> dict[int, Any]:
        """Return the added tokens {id: token} of the older files, for a folder whose config has none."""
        added: dict[int, Any] = {}
        if repo.has(TOKENIZER_NAME) and not cls.is_fast:
            for token in read_json(repo.path(TOKENIZER_NAME)).get("added_tokens") or ():
                added[token["id"]] = {name: value for name, value in token.items() if name != "id"}
        if repo.has(ADDED_TOKENS_NAME):
            for text, index in read_json(repo.path(ADDED_TOKENS_NAME)).items():
                added.setdefault(index, text)
        return added

    @classmethod
    def _vocabulary_paths(cls, repo: Repo) -> dict[str, str]:
        paths = {keyword: file for keyword, file in cls.vocab_files_names.items() if repo.has(file)}
        parameters = _parameters(cls.__init__)
        for keyword, file in cls.vocab_files_names.items():
            needed = keyword in parameters and parameters[keyword].default is inspect.Parameter.empty
            if needed and keyword not in paths:
                raise RepoError(f"{repo}: {cls.__name__} needs the vocabulary file {file}, but it is not there.")
        return {keyword: str(repo.path(file)) for keyword, file in paths.items()}

    def save_vocabulary(
        self,
        save_directory: str,  # noqa: ARG002 (for a subclass that has files)
        filename_prefix: str | None = None,  # noqa: ARG002
    ) -> tuple[str, ...]:
        """Write the vocabulary files into `save_directory` and return their paths; by default there are none."""
        if self.vocab_files_names:
            raise NotImplementedError(f"{type(self).__name__} has vocabulary files and must define save_vocabulary.")
        return ()

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> tuple[str, ...]:
        """Write the tokenizer's files into the folder `save_directory`, made if absent, and return their paths.

        legacy_format: of a fast tokenizer, True leaves out tokenizer.json, False the vocabulary files of the slow one.
        filename_prefix: put before each file's name, with a dash.
        push_to_hub: upload them as one commit; the other keywords are those of `push_to_hub`.
        Raises RepoError when the folder cannot be written, ConfigError for an option that JSON does not have, HubError
        if the upload is refused.
        """
        if legacy_format is not None and not self.is_fast:
            raise InputError(
                f"{type(self).__name__}.save_pretrained: legacy_format is a choice of fast tokenizers only."
            )
        push = take_push(self, save_directory, push_to_hub, kwargs)
        folder = Path(save_directory).expanduser()
        if folder.exists() and not folder.is_dir():
            raise RepoError(f"{folder}: expected a folder to save a tokenizer into, found a file.")
        if filename_prefix is not None and Path(filename_prefix).name != filename_prefix:
            raise InputError(f"save_pretrained: expected filename_prefix without a folder, got {filename_prefix!r}.")
        folder.mkdir(parents=True, exist_ok=True)
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        config_path, special_path, added_path, template_path, backend_path = (
            folder / f"{prefix}{name}"
            for name in (
                TOKENIZER_CONFIG_NAME, SPECIAL_TOKENS_MAP_NAME, ADDED_TOKENS_NAME, CHAT_TEMPLATE_NAME, TOKENIZER_NAME,
            )
        )  # fmt: skip
        auto_map, code = code_to_save([type(self)])
        for name, text in code.items():
            write_text(folder / name, text)
        # The classes are a pair, the slow one and the fast one.
        pairs = {auto: [None, name] if self.is_fast else [name, None] for auto, name in auto_map.items()}
        write_json(config_path, {**self._config_to_save(), **({"auto_map": pairs} if pairs else {})})
        write_json(special_path, self._special_tokens_to_save())
        written = [str(config_path), str(special_path), *(str(folder / name) for name in code)]
        if isinstance(self.chat_template, str):
            template_path.write_text(self.chat_template, encoding="utf-8")
            written.append(str(template_path))
        if legacy_format is not False:
            written += self.save_vocabulary(str(folder), filename_prefix)
        added = {text: index for text, index in self.added_tokens_encoder.items() if index >= self.vocab_size}
        if added and legacy_format is not False:
            write_json(added_path, added)
            written.append(str(added_path))
        if self.is_fast and legacy_format is not True:
            self._save_backend(backend_path)
            written.append(str(backend_path))
        if push is not None:
            publish(folder, (Path(path).name for path in written), push)
        return tuple(written)

    @property
    def vocab_size(self) -> int:
        """The number of ids of the base vocabulary, without added tokens."""
        raise NotImplementedError

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The tokens that were added to the vocabulary or are special, by id."""
        return {}

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """The ids of `added_tokens_decoder` by text, in the order of their ids."""
        return {token.content: index for index, token in sorted(self.added_tokens_decoder.items())}

    def _save_backend(self, path: Path) -> None:
        raise NotImplementedError

    def _config_to_save(self) -> dict[str, Any]:
        own = {name: value for name, value in self.init_kwargs.items() if name not in self.vocab_files_names}
        added = {str(index): token_to_json(token) for index, token in self.added_tokens_decoder.items()}
        template = {}
        if isinstance(self.chat_template, dict):
            template = {
                "chat_template": [{"name": name, "template": text} for name, text in self.chat_template.items()]
            }
        return {
            **self._unused_config,
            **({"added_tokens_decoder": added} if added else {}),
            **template,
            **own,
            **self.special_tokens_map,
            **({"extra_special_tokens": extra} if (extra := self.extra_special_tokens) else {}),
            "model_max_length": self.model_max_length,
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
            **({"split_special_tokens": True} if self.split_special_tokens else {}),
            "tokenizer_class": _saved_class_name(type(self).__name__),
        }


@cache
def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


def _chat_templates(repo: Repo) -> dict[str, str]:
    """Return the templates that are files of their own, by name: "default" and those of a folder."""
    files = {"default": CHAT_TEMPLATE_NAME} if repo.has(CHAT_TEMPLATE_NAME) else {}
    for name in repo.files(CHAT_TEMPLATE_FOLDER):
        if name.endswith(".jinja"):
            files[name.removesuffix(".jinja")] = f"{CHAT_TEMPLATE_FOLDER}/{name}"
    return {name: repo.path(file).read_text(encoding="utf-8") for name, file in files.items()}


def _saved_class_name(name: str) -> str:
    """Return the name without "Fast", as 4.x saves it; the reader chooses between the two forms."""
    return name if name == "PreTrainedTokenizerFast" else name.removesuffix("Fast")


def _text_of(value: Any) -> Any:
    if isinstance(value, list):
        return [_text_of(each) for each in value]
    return value.get("content") if isinstance(value, Mapping) else value
