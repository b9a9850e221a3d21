"""GenerationConfig: how to decode, as attributes that become generation_config.json."""

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from modelwright.config.json_file import dump_json, read_json, write_text
from modelwright.core.errors import ConfigError, RepoError, UnknownArgumentError, nearest
from modelwright.core.version import __version__
from modelwright.generation.fields import DEFAULTS, GENERATE_ARGUMENTS, NOT_BUILT
from modelwright.generation.validation import check_settings
from modelwright.hub.download import take_download
from modelwright.hub.names import GENERATION_CONFIG_NAME
from modelwright.hub.open import open_repo
from modelwright.hub.publish import PushToHubMixin, publish, take_push

# True of this object or of the program that wrote it, not of how to decode.
_UNSAVED = ("_commit_hash", "transformers_version", "modelwright_version")
# Fields that a model's configuration has too, where they are about its forward call.
_OF_THE_CALL = {"output_attentions", "output_hidden_states"}


class _HasToDict(Protocol):
    def to_dict(self) -> dict[str, Any]: ...


class GenerationConfig(PushToHubMixin):
    """The settings of `generate`, by the names of transformers 4.57, and one more.

    Lengths are in tokens; `max_length` and `min_length` count the prompt, `max_new_tokens` and `min_new_tokens` do not.
    `eos_token_id` is one id or a list. `use_cache` None means a cache where the model has one. `speculative_ngram` lets
    ProphetNet's second predict stream draft tokens, with the same result in fewer calls: see
    `modelwright.generation.speculative`. Fields that `generate` does not act on yet, and keywords that it does not
    know, are kept and saved.
    Raises ConfigError, naming the field, for a value that cannot work.
    """

    max_length: int | None
    max_new_tokens: int | None
    min_length: int | None
    min_new_tokens: int | None
    max_time: float | None
    stop_strings: str | list[str] | None
    do_sample: bool
    num_beams: int
    num_beam_groups: int
    diversity_penalty: float
    length_penalty: float
    early_stopping: bool | str
    num_return_sequences: int
    speculative_ngram: bool
    use_cache: bool | None
    cache_implementation: str | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    epsilon_cutoff: float | None
    eta_cutoff: float | None
    repetition_penalty: float | None
    no_repeat_ngram_size: int | None
    encoder_repetition_penalty: float | None
    encoder_no_repeat_ngram_size: int | None
    bad_words_ids: list[list[int]] | None
    sequence_bias: Any
    suppress_tokens: list[int] | None
    begin_suppress_tokens: list[int] | None
    forced_bos_token_id: int | None
    forced_eos_token_id: int | list[int] | None
    exponential_decay_length_penalty: tuple[int, float] | None
    remove_invalid_values: bool | None
    renormalize_logits: bool | None
    output_attentions: bool
    output_hidden_states: bool
    output_scores: bool
    output_logits: bool | None
    return_dict_in_generate: bool
    pad_token_id: int | None
    bos_token_id: int | None
    eos_token_id: int | list[int] | None
    decoder_start_token_id: int | list[int] | None

    def __init__(self, **kwargs: Any) -> None:
        self._from_model_config = bool(kwargs.pop("_from_model_config", False))
        for name in _UNSAVED:
            kwargs.pop(name, None)
        for name, default in DEFAULTS.items():
            setattr(self, name, kwargs.pop(name, default))
        for name in kwargs:
            if name in GENERATE_ARGUMENTS:
                raise ConfigError(f"GenerationConfig: {name!r} is an argument of generate(), pass it there.")
        self.__dict__.update(kwargs)
        self.validate()

    def validate(self) -> None:
        """Raise ConfigError for a value, or a combination of values, that cannot work."""
        check_settings(self.__dict__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GenerationConfig) and self.to_diff_dict() == other.to_diff_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"GenerationConfig {self.to_json_string()}"

    def update(self, **kwargs: Any) -> dict[str, Any]:
        """Set the fields that `kwargs` name and return the other keywords; ConfigError as in the constructor."""
        known = {name: value for name, value in kwargs.items() if name in DEFAULTS or name in self.__dict__}
        check_settings(self.__dict__ | known)
        self.__dict__.update(known)
        return {name: value for name, value in kwargs.items() if name not in known}

    def not_built(self) -> dict[str, Any]:
        """Return the settings that `generate` would have to refuse: no decoding loop of ours knows them."""
        return {name: value for name, neutral in NOT_BUILT.items() if not _equal(value := getattr(self, name), neutral)}

    # Out

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, in a copy that may be changed."""
        return copy.deepcopy({name: value for name, value in self.__dict__.items() if name not in _UNSAVED})

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the fields that differ from what they are when nothing is said."""
        neutral = DEFAULTS | {"_from_model_config": False}
        values = self.to_dict().items()
        return {name: value for name, value in values if name not in neutral or not _equal(value, neutral[name])}

    def to_json_string(self, use_diff: bool = True) -> str:
        """Return the text of generation_config.json; all fields with `use_diff=False`.

        Raises ConfigError that names a field whose value JSON does not have.
        """
        values = self.to_diff_dict() if use_diff else self.to_dict()
        return dump_json({**values, "modelwright_version": __version__}, where="GenerationConfig")

    def to_json_file(self, json_file_path: str | os.PathLike[str], use_diff: bool = True) -> None:
        """Write `to_json_string(use_diff)` to a file in one step; raise RepoError if that is impossible."""
        write_text(json_file_path, self.to_json_string(use_diff))

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        config_file_name: str = GENERATION_CONFIG_NAME,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Write generation_config.json into the folder `save_directory`, made if absent.

        push_to_hub: upload it as one commit; the other keywords are those of `push_to_hub`.
        Raises ConfigError for settings that cannot work, RepoError when the file cannot be written, HubError if the
        upload is refused.
        """
        push = take_push(self, save_directory, push_to_hub, kwargs)
        self.validate()
        folder = Path(save_directory).expanduser()
        if folder.exists() and not folder.is_dir():
            raise RepoError(f"{folder}: expected a folder to save the generation config in, found a file.")
        folder.mkdir(parents=True, exist_ok=True)
        self.to_json_file(folder / config_file_name)
        if push is not None:
            publish(folder, [config_file_name], push)

    # In

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name: str | os.PathLike[str],
        *,
        config_file_name: str = GENERATION_CONFIG_NAME,
        subfolder: str = "",
        return_unused_kwargs: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Read the generation config of a folder or hub repository; `kwargs` override its fields.

        The keywords about downloads are those of `PretrainedConfig.from_pretrained`.

        With `return_unused_kwargs` the result is (config, keywords that are no field), else such a keyword raises
        UnknownArgumentError. Raises RepoError for a missing file, ConfigError (naming the file) for a bad one.
        """
        download, kwargs = take_download("GenerationConfig.from_pretrained", kwargs)
        path = open_repo(pretrained_model_name, subfolder=subfolder, download=download).path(config_file_name)
        values = read_json(path)
        try:
            return cls.from_dict(values, return_unused_kwargs=return_unused_kwargs, **kwargs)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], *, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """Make a config of the items of `config_dict`; `kwargs` and errors are those of `from_pretrained`."""
        overrides = {name: value for name, value in kwargs.items() if name in DEFAULTS or name in config_dict}
        unused = {name: value for name, value in kwargs.items() if name not in overrides}
        config = cls(**{**config_dict, **overrides})
        if return_unused_kwargs:
            return config, unused
        for name in unused:
            raise UnknownArgumentError(f"GenerationConfig has no field {name!r} to override.{nearest(name, DEFAULTS)}")
        return config

    @classmethod
    def from_model_config(cls, model_config: _HasToDict) -> Self:
        """Return the settings that a model's own configuration holds: its special ids, and fields of old config.json.

        Special ids that it lacks are taken from the configuration of its decoder. A model's `use_cache=True` says that
        it can cache, not that decoding must: only False is taken over.
        """
        values = model_config.to_dict()
        nested = (values.get(name) for name in ("decoder", "text_config"))
        inner: dict[str, Any] = next((each for each in nested if isinstance(each, dict)), {})
        for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
            if values.get(name) is None and inner.get(name) is not None:
                values[name] = inner[name]
        fields = {name: values[name] for name in DEFAULTS.keys() & values.keys() - _OF_THE_CALL}
        if fields.get("use_cache") is not False:
            fields.pop("use_cache", None)
        fields = {name: value for name, value in fields.items() if value is not None}
        return cls(**fields, _from_model_config=True)


def _equal(value: Any, default: Any) -> bool:
    # True == 1 in Python, but not in a JSON file.
    return isinstance(value, bool) == isinstance(default, bool) and bool(value == default)
