"""AutoTokenizer: the tokenizer class that a folder asks for."""

import os
from dataclasses import replace
from typing import Any

from modelwright import _public
from modelwright.config.configuration import PretrainedConfig, read_config
from modelwright.config.json_file import read_json
from modelwright.core.errors import ConfigError, InputError
from modelwright.core.logging import get_logger
from modelwright.hub.download import take_download
from modelwright.hub.names import CONFIG_NAME, TOKENIZER_CONFIG_NAME, TOKENIZER_NAME
from modelwright.hub.open import open_repo
from modelwright.hub.repo import Repo
from modelwright.models.auto.remote_code import Origin, find_custom_class
from modelwright.models.auto.tables import FAST_TOKENIZERS, TOKENIZERS, AutoTable, load_public
from modelwright.tokenization.config_file import read_tokenizer_config

logger = get_logger(__name__)

TABLE = AutoTable("AutoTokenizer", TOKENIZERS)
FAST_TABLE = AutoTable("AutoTokenizer", FAST_TOKENIZERS)

_VOCABULARY_FILES = (
    TOKENIZER_NAME,
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "vocab.txt",
    "prophetnet.tokenizer",
    "vocab.json",
)


class AutoTokenizer:
    """Finds the tokenizer class; made by `from_pretrained` only."""

    def __init__(self) -> None:
        raise InputError("AutoTokenizer: call AutoTokenizer.from_pretrained(folder)")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *inputs: Any,
        config: PretrainedConfig | None = None,
        subfolder: str = "",
        use_fast: bool = True,
        trust_remote_code: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return the tokenizer of a folder or repository: of the class that its config names, else the model_type's.

        use_fast: of two classes of one name, take the one with "Fast" at its end. config: instead of the folder's
        config.json. trust_remote_code: True runs the code of a tokenizer that brings its own. The keywords about
        downloads are those of `PretrainedConfig.from_pretrained`; others go to the tokenizer.
        Raises RepoError, ConfigError for a class or model_type that nobody knows, InputError for code that is not
        trusted.
        """
        download, kwargs = take_download("AutoTokenizer.from_pretrained", kwargs)
        repo = open_repo(pretrained_model_name_or_path, subfolder=subfolder, download=download)
        download = replace(download, commit_hash=repo.commit_hash)
        place = str(pretrained_model_name_or_path)
        says = read_tokenizer_config(repo)
        name = says.get("tokenizer_class") or getattr(config, "tokenizer_class", None)
        ours = None if name is None else _class_by_name(name, use_fast)
        code = _says_code(repo, says, name)
        ours = ours or _fast_without_a_class(repo, name, use_fast, place, code, config)
        origin = Origin(pretrained_model_name_or_path, subfolder, download)
        found = find_custom_class(
            "AutoTokenizer", origin, code, trust_remote_code, known=ours is not None, use_fast=use_fast
        )
        found = found or ours
        if name is not None and found is None:
            raise ConfigError(
                f"{place}: AutoTokenizer does not know the tokenizer class {name!r}; import it and call "
                "AutoTokenizer.register(), or use the class itself"
            )
        if found is None:
            found = _without_vocabulary(repo, _model_type(repo, config, place))
            found = found or cls._class_by_model_type(_model_type(repo, config, place), place, use_fast)
            _check_vocabulary(found, repo, place)
        return found.from_pretrained(
            pretrained_model_name_or_path, *inputs, subfolder=subfolder, **download.keywords(), **kwargs
        )

    @classmethod
    def _class_by_model_type(cls, model_type: str, place: str, use_fast: bool) -> Any:
        table = FAST_TABLE if use_fast and model_type in FAST_TABLE else TABLE
        if model_type not in table and model_type in FAST_TABLE:
            table = FAST_TABLE
        return table.find(model_type, place)

    @staticmethod
    def register(
        config_class: type[PretrainedConfig],
        slow_tokenizer_class: type | None = None,
        fast_tokenizer_class: type | None = None,
        exist_ok: bool = False,
    ) -> None:
        """Make one or both classes the tokenizers for models of `config_class`, and known by their names.

        Raises InputError if neither is given, or if there is a class already and `exist_ok` is False.
        """
        if slow_tokenizer_class is None and fast_tokenizer_class is None:
            raise InputError("AutoTokenizer.register: expected a slow_tokenizer_class, a fast_tokenizer_class or both")
        if slow_tokenizer_class is not None:
            TABLE.add(config_class.model_type, slow_tokenizer_class, exist_ok)
        if fast_tokenizer_class is not None:
            FAST_TABLE.add(config_class.model_type, fast_tokenizer_class, exist_ok)


def _says_code(repo: Repo, says: dict[str, Any], name: str | None) -> dict[str, Any]:
    """Return the content of the file that names the tokenizer's own code: config.json, if its own config names none."""
    if says.get("auto_map") or name is not None or not repo.has(CONFIG_NAME):
        return says
    values = read_config(repo)
    auto_map = values.get("auto_map")
    return values if isinstance(auto_map, dict) and "AutoTokenizer" in auto_map else says


def _class_by_name(name: str, use_fast: bool) -> Any:
    """Return the class `name`, of its two forms with and without "Fast" the wanted one if there is it, or None."""
    plain = name.removesuffix("Fast")
    forms = (f"{plain}Fast", plain) if use_fast else (plain, f"{plain}Fast")
    registered = {entry.__name__: entry for table in (TABLE, FAST_TABLE) for entry in table.classes()}
    for form in forms:
        if form in registered:
            return registered[form]
        if _public.find(form) is not None:
            return load_public(form)
    return None


def _fast_without_a_class(
    repo: Repo, name: str | None, use_fast: bool, place: str, says: Any, config: PretrainedConfig | None
) -> Any:
    """Return the class for a tokenizer.json whose own class is not named, or not known here; else None."""
    if not use_fast or not repo.has(TOKENIZER_NAME) or says.get("auto_map"):
        return None
    if name is None:
        model_type = _said_model_type(repo, config, place)
        return None if model_type in FAST_TABLE else load_public("PreTrainedTokenizerFast")
    logger.warning_once(
        f"{place}: AutoTokenizer does not know the class {name!r}; its {TOKENIZER_NAME} is read as "
        "PreTrainedTokenizerFast."
    )
    return load_public("PreTrainedTokenizerFast")


def _without_vocabulary(repo: Repo, model_type: str) -> Any:
    """Return ByteTokenizer for a Reformer without a vocabulary file (as google/reformer-enwik8), else None."""
    bare = model_type == "reformer" and not any(repo.has(name) for name in _VOCABULARY_FILES)
    own = model_type in TABLE and not isinstance(TABLE.entry(model_type), str)
    return load_public("ByteTokenizer") if bare and not own else None


def _check_vocabulary(found: Any, repo: Repo, place: str) -> None:
    """Raise ConfigError if the folder has a vocabulary that the class, which only its model_type suggests, ignores."""
    unread = [name for name in _VOCABULARY_FILES if repo.has(name)]
    if unread and not set(unread) & set(found.vocab_files_names.values()):
        raise ConfigError(
            f"{place}: expected {TOKENIZER_CONFIG_NAME} to name the tokenizer_class; its model_type suggests "
            f"{found.__name__}, which does not read {', '.join(unread)}. Use the tokenizer class itself"
        )


def _model_type(repo: Repo, config: PretrainedConfig | None, place: str) -> str:
    model_type = _said_model_type(repo, config, place)
    if not model_type:
        raise ConfigError(
            f"{place}: expected a tokenizer_class in {TOKENIZER_CONFIG_NAME} or a model_type in {CONFIG_NAME}, found "
            "neither; use the tokenizer class itself"
        )
    return model_type


def _said_model_type(repo: Repo, config: PretrainedConfig | None, place: str) -> str | None:
    """Return the model_type of the config, of a pair of models that of its encoder, which reads the texts."""
    if config is not None:
        values: dict[str, Any] = config.to_dict()
    else:
        values = read_json(repo.path(CONFIG_NAME)) if repo.has(CONFIG_NAME) else {}
    encoder, decoder = values.get("encoder"), values.get("decoder")
    if values.get("model_type") == "encoder-decoder" and isinstance(encoder, dict):
        reads, writes = encoder.get("model_type"), decoder.get("model_type") if isinstance(decoder, dict) else None
        if writes not in (None, reads):
            logger.warning_once(
                f"{place}: the encoder is a {reads} and the decoder a {writes}, whose texts AutoTokenizer cannot both "
                "read. It takes the encoder's tokenizer; load the decoder's from a folder of its own"
            )
        return reads
    return values.get("model_type")
