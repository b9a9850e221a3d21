"""tokenizer_config.json: read, with the types that its values must have (without importing a tokenizer library)."""

from typing import Any

from modelwright.config.json_file import read_json
from modelwright.core.errors import ConfigError
from modelwright.hub.custom_code import qualify
from modelwright.hub.names import TOKENIZER_CONFIG_NAME
from modelwright.hub.repo import Repo

_CONFIG_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "model_max_length": ((int, float), "a number of tokens"),
    "tokenizer_class": (str, "the name of a class"),
    "padding_side": (str, "'left' or 'right'"),
    "truncation_side": (str, "'left' or 'right'"),
    "model_input_names": (list, "a list of names"),
}


def read_tokenizer_config(repo: Repo) -> dict[str, Any]:
    """Return what tokenizer_config.json holds, {} without one; raises ConfigError for values of a wrong type."""
    if not repo.has(TOKENIZER_CONFIG_NAME):
        return {}
    path = repo.path(TOKENIZER_CONFIG_NAME)
    stored = read_json(path)
    for name, (kinds, expected) in _CONFIG_TYPES.items():
        value = stored.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds) or value != value):
            raise ConfigError(f"{path}: expected {name} to be {expected}, got {value!r}")
    return stored if repo.commit_hash is None else qualify(stored, repo.name)
