"""AutoConfig: the configuration class that a config.json asks for."""

import os
from dataclasses import replace
from typing import Any, Literal, overload

from modelwright.config.configuration import PretrainedConfig
from modelwright.core.errors import ConfigError, InputError
from modelwright.hub.download import take_download
from modelwright.models.auto.remote_code import Origin, find_custom_class
from modelwright.models.auto.tables import CONFIGS, AutoTable

TABLE = AutoTable("AutoConfig", CONFIGS)


class AutoConfig:
    """Finds the configuration class by `model_type`; made by `from_pretrained` or `for_model` only."""

    def __init__(self) -> None:
        raise InputError("AutoConfig: call AutoConfig.from_pretrained(folder) or AutoConfig.for_model(model_type)")

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: Literal[True],
        **kwargs: Any,
    ) -> tuple[Any, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: bool = False,
        **kwargs: Any,
    ) -> Any: ...

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        subfolder: str = "",
        return_unused_kwargs: bool = False,
        trust_remote_code: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return the config of a folder or hub repository, or of a JSON file; other keywords override its attributes.

        The keywords about downloads are those of `PretrainedConfig.from_pretrained`. trust_remote_code: True runs the
        code of a checkpoint that brings its own. With `return_unused_kwargs` the result is (config, keywords that name
        no attribute), else those raise UnknownArgumentError. Raises RepoError if there is no such file, ConfigError if
        it is damaged or its model_type is unknown or absent, InputError for code that is not trusted.
        """
        download, kwargs = take_download("AutoConfig.from_pretrained", kwargs)
        values, _ = PretrainedConfig.get_config_dict(
            pretrained_model_name_or_path, subfolder=subfolder, **download.keywords()
        )
        download = replace(download, commit_hash=values.get("_commit_hash"))
        place, model_type = str(pretrained_model_name_or_path), values.get("model_type")
        origin = Origin(pretrained_model_name_or_path, subfolder, download)
        found = find_custom_class("AutoConfig", origin, values, trust_remote_code, known=model_type in TABLE)
        if found is None and not model_type:
            raise ConfigError(
                f"{place}: expected a model_type in config.json, found none; add one of {', '.join(TABLE.known())}, or "
                "use the config class of its family"
            )
        found = found or TABLE.find(str(model_type), place)
        return found.from_pretrained(
            pretrained_model_name_or_path,
            subfolder=subfolder,
            return_unused_kwargs=return_unused_kwargs,
            **download.keywords(),
            **kwargs,
        )

    @classmethod
    def for_model(cls, model_type: str, *args: Any, **kwargs: Any) -> Any:
        """Return a new config of the class for `model_type`; raise ConfigError for an unknown one."""
        return TABLE.find(model_type, "AutoConfig.for_model")(*args, **kwargs)

    @staticmethod
    def register(model_type: str, config: type[PretrainedConfig], exist_ok: bool = False) -> None:
        """Make `config` the class for `model_type`, which must be its own; raise InputError if that is taken."""
        if config.model_type != model_type:
            raise InputError(
                f"AutoConfig.register: expected {config.__name__}.model_type to be {model_type!r}, "
                f"got {config.model_type!r}"
            )
        TABLE.add(model_type, config, exist_ok)
