"""AutoModel and its siblings: the model class that a config.json asks for."""

import os
from dataclasses import replace
from typing import Any, ClassVar

from modelwright.config.configuration import PretrainedConfig
from modelwright.core.errors import ConfigError, InputError
from modelwright.hub.download import take_download
from modelwright.hub.open import open_repo
from modelwright.models.auto.remote_code import Origin, find_custom_class
from modelwright.models.auto.tables import MODELS, AutoTable
from modelwright.pretrained.adapters import base_of


class _AutoModelBase:
    """Finds the model class by the config's `model_type`; made by `from_pretrained` or `from_config` only."""

    table: ClassVar[AutoTable]

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        name = type(self).__name__
        raise InputError(f"{name}: call {name}.from_pretrained(folder) or {name}.from_config(config)")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *model_args: Any,
        config: PretrainedConfig | str | os.PathLike[str] | None = None,
        trust_remote_code: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return the model of a folder or hub repository; the keywords are those of `PreTrainedModel.from_pretrained`.

        trust_remote_code: True runs the code of a checkpoint that brings its own (code_revision: its revision, if it is
        in a repository of its own). Raises ConfigError for an unknown model_type, InputError for code that is not
        trusted, and what the model's own `from_pretrained` raises.
        """
        download, kwargs = take_download(f"{cls.__name__}.from_pretrained", kwargs)
        source = pretrained_model_name_or_path if config is None or isinstance(config, PretrainedConfig) else config
        subfolder = kwargs.get("subfolder", "") if source is pretrained_model_name_or_path else ""
        reads = download
        if isinstance(config, PretrainedConfig):
            values, where = _of_config(config), type(config).__name__
        else:
            if source is None:
                raise InputError(f"{cls.__name__}.from_pretrained: expected a folder or a config, got neither")
            if config is None:
                repo = open_repo(source, subfolder=subfolder, download=download)
                reads = download = replace(download, commit_hash=repo.commit_hash)
                base = base_of(repo)
                if base is not None:
                    # The folder of an adapter: class and code are those of the model that it belongs to.
                    source, subfolder = base[0], ""
                    reads = replace(download, revision=base[1], commit_hash=None)
            values, _ = PretrainedConfig.get_config_dict(source, subfolder=subfolder, **reads.keywords())
            where = str(source)
        origin = Origin("" if source is None else source, subfolder, reads)
        model_class = cls._find(values, where, origin, trust_remote_code)
        return model_class.from_pretrained(
            pretrained_model_name_or_path, *model_args, config=config, **download.keywords(), **kwargs
        )

    @classmethod
    def _find(cls, values: dict[str, Any], where: str, origin: Origin, trust: bool | None) -> Any:
        """Return the class for a config of the content `values`, which `where` names in errors."""
        model_type = values.get("model_type")
        found = find_custom_class(cls.__name__, origin, values, trust, known=model_type in cls.table)
        if found is None and not model_type:
            raise ConfigError(
                f"{where}: expected a model_type in config.json, found none; add one of "
                f"{', '.join(cls.table.known())}, or use the model class of its family"
            )
        return found or cls.table.find(str(model_type), where)

    @classmethod
    def from_config(cls, config: PretrainedConfig, *, trust_remote_code: bool | None = None, **kwargs: Any) -> Any:
        """Return a newly initialised model; the keywords are those of `PreTrainedModel.from_config`.

        trust_remote_code: True runs the code of the checkpoint that `config` was read from, if it brings its own.
        """
        if not isinstance(config, PretrainedConfig):
            raise InputError(f"{cls.__name__}.from_config: expected a config, got {type(config).__name__}")
        download, kwargs = take_download(f"{cls.__name__}.from_config", kwargs)
        origin = Origin(config.name_or_path, "", replace(download, commit_hash=config._commit_hash))
        return cls._find(_of_config(config), type(config).__name__, origin, trust_remote_code).from_config(
            config, **kwargs
        )

    @classmethod
    def register(cls, config_class: type[PretrainedConfig], model_class: type, exist_ok: bool = False) -> None:
        """Make `model_class` the class for configs of `config_class`, which must be its own config_class.

        Raises InputError if it is not, or if there is a class already and `exist_ok` is False.
        """
        own = getattr(model_class, "config_class", None)
        if own is not None and own is not config_class:
            raise InputError(
                f"{cls.__name__}.register: expected a model class whose config_class is {config_class.__name__}, "
                f"but that of {model_class.__name__} is {own.__name__}"
            )
        cls.table.add(config_class.model_type, model_class, exist_ok)


def _of_config(config: PretrainedConfig) -> dict[str, Any]:
    """Return what decides about the class."""
    return {"model_type": config.model_type, "auto_map": getattr(config, "auto_map", None)}


class AutoModel(_AutoModelBase):
    """The base model, without a head, of any family."""

    table = AutoTable("AutoModel", MODELS["AutoModel"])


class AutoModelForCausalLM(_AutoModelBase):
    """The language model that predicts the next token, of any family that has one."""

    table = AutoTable("AutoModelForCausalLM", MODELS["AutoModelForCausalLM"])


class AutoModelForSeq2SeqLM(_AutoModelBase):
    """The language model that writes one text given another, of any family that has one."""

    table = AutoTable("AutoModelForSeq2SeqLM", MODELS["AutoModelForSeq2SeqLM"])


class AutoModelForSequenceClassification(_AutoModelBase):
    """The model that scores the labels of a sequence, of any family that has one."""

    table = AutoTable("AutoModelForSequenceClassification", MODELS["AutoModelForSequenceClassification"])


class AutoModelForTokenClassification(_AutoModelBase):
    """The model that scores the labels of each token, of any family that has one."""

    table = AutoTable("AutoModelForTokenClassification", MODELS["AutoModelForTokenClassification"])


class AutoModelForQuestionAnswering(_AutoModelBase):
    """The model that scores the first and the last token of an answer, of any family that has one."""

    table = AutoTable("AutoModelForQuestionAnswering", MODELS["AutoModelForQuestionAnswering"])


class AutoModelForMaskedLM(_AutoModelBase):
    """The model that scores the vocabulary at each place, of any family that has one."""

    table = AutoTable("AutoModelForMaskedLM", MODELS["AutoModelForMaskedLM"])


class AutoModelForMultipleChoice(_AutoModelBase):
    """The model that chooses among several continuations, of any family that has one."""

    table = AutoTable("AutoModelForMultipleChoice", MODELS["AutoModelForMultipleChoice"])


class AutoModelForNextSentencePrediction(_AutoModelBase):
    """The model that tells whether one sentence follows another, of any family that has one."""

    table = AutoTable("AutoModelForNextSentencePrediction", MODELS["AutoModelForNextSentencePrediction"])


class AutoModelForPreTraining(_AutoModelBase):
    """The model with the heads that its family is pretrained with."""

    table = AutoTable("AutoModelForPreTraining", MODELS["AutoModelForPreTraining"])
