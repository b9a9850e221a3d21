"""AutoConfig: the configuration class that a config.json asks for."""

import os
from typing import Any, Literal, overload

from modelwright.config.configuration import PretrainedConfig
from modelwright.core.errors import ConfigError, InputError
from modelwright.models.auto.remote_code import refuse_remote_code
from modelwright.models.auto.tables import CONFIGS, AutoTable
from modelwright.pretrained.legacy_keywords import HUB, settle

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
        """Return the config of a folder with a config.json, or of a JSON file; other keywords override its attributes.

        With `return_unused_kwargs` the result is (config, keywords that name no attribute), else those raise
        UnknownArgumentError. Raises RepoError if there is no such file, ConfigError if it is damaged or its model_type
        is unknown or absent, InputError (NotImplementedError with trust_remote_code) for a model with code of its own.
        """
        kwargs = settle("AutoConfig.from_pretrained", kwargs, HUB)
        values, _ = PretrainedConfig.get_config_dict(pretrained_model_name_or_path, subfolder=subfolder)
        place = str(pretrained_model_name_or_path)
        model_type = values.get("model_type")
        refuse_remote_code("AutoConfig", place, values, trust_remote_code, model_type in TABLE)
        if not model_type:
            raise ConfigError(
                f"{place}: expected a model_type in config.json, found none; add one of {', '.join(TABLE.known())}, or "
                "use the config class of its family"
            )
        return TABLE.find(model_type, place).from_pretrained(
            pretrained_model_name_or_path, subfolder=subfolder, return_unused_kwargs=return_unused_kwargs, **kwargs
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
