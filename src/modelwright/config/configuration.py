"""PretrainedConfig: what a model is, as plain attributes that become config.json."""

import copy
import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, overload

from modelwright.config.defaults import COMMON_DEFAULTS, DEFAULT_NUM_LABELS, GENERATION_DEFAULTS, PROBLEM_TYPES
from modelwright.config.json_file import dump_json, read_json, write_text
from modelwright.config.values import common_values, difference, dtype_name, int_keys, label_maps, plain
from modelwright.core.errors import ConfigError, RepoError, UnknownArgumentError, nearest
from modelwright.core.logging import get_logger
from modelwright.core.version import __version__
from modelwright.hub.custom_code import AutoClassMixin, code_to_save, qualify
from modelwright.hub.download import take_download
from modelwright.hub.names import CONFIG_NAME
from modelwright.hub.open import open_repo
from modelwright.hub.publish import PushToHubMixin, publish, take_push
from modelwright.hub.repo import Repo

logger = get_logger(__name__)

# Where a configuration came from and how it is used here: true of this object, not of the model, and never saved.
_UNSAVED = ("_name_or_path", "_commit_hash", "_attn_implementation", "_auto_class", "modelwright_version")
_SPECIAL_KEYWORDS = ("torch_dtype", "num_labels", "id2label", "label2id", "name_or_path", "attn_implementation")


class PretrainedConfig(AutoClassMixin, PushToHubMixin):
    """Base of all configurations: attributes with defaults, an alias table, JSON in and out.

    A keyword that no class in the family knows becomes an attribute and is saved. The keywords shared by all models
    and their defaults are in `modelwright.config.defaults`. `dtype` is kept as a name ("float32"); a torch.dtype may be
    given. `id2label` and `label2id` follow from each other; without them `num_labels` (2) names them LABEL_0, ...

    Class attributes that a family sets: `model_type`; `attribute_map`, other names of attributes, valid for reading,
    writing and as keywords; `sub_configs`, classes of nested configurations; `keys_to_ignore_at_inference`;
    `has_no_defaults_at_init`, True if the class cannot be made without arguments; `compatible_model_types`, other
    values of `model_type` in a file that this class may read.

    Raises ConfigError for a problem_type that does not exist, for maps that are none, and for a `num_labels` that
    contradicts `id2label`.
    """

    model_type: str = ""
    attribute_map: ClassVar[dict[str, str]] = {}
    sub_configs: ClassVar[dict[str, Any]] = {}
    keys_to_ignore_at_inference: ClassVar[list[str]] = []
    has_no_defaults_at_init: ClassVar[bool] = False
    compatible_model_types: ClassVar[tuple[str, ...]] = ()
    _default_auto_class: ClassVar[str] = "AutoConfig"

    dtype: str | None
    id2label: dict[int, str]
    label2id: dict[str, int]
    pruned_heads: dict[int, list[int]]

    def __init__(self, **kwargs: Any) -> None:
        old_dtype = kwargs.pop("torch_dtype", None)
        if kwargs.get("dtype") is None and old_dtype is not None:
            kwargs["dtype"] = old_dtype
        kwargs.pop("modelwright_version", None)
        self._name_or_path = str(kwargs.pop("name_or_path", None) or kwargs.pop("_name_or_path", None) or "")
        self._commit_hash = kwargs.pop("_commit_hash", None)
        self._attn_implementation = kwargs.pop("attn_implementation", None)
        for name, default in COMMON_DEFAULTS.items():
            setattr(self, name, kwargs.pop(name, copy.copy(default)))
        where = type(self).__name__
        self.pruned_heads = int_keys(f"{where}.pruned_heads", self.pruned_heads or {})
        if self.problem_type is not None and self.problem_type not in PROBLEM_TYPES:
            raise ConfigError(
                f"{where}.problem_type: expected None or one of {', '.join(PROBLEM_TYPES)}, got {self.problem_type!r}"
            )
        self._set_labels(kwargs.pop("num_labels", None), kwargs.pop("id2label", None), kwargs.pop("label2id", None))
        for name, value in kwargs.items():
            setattr(self, name, value)

    # --- attributes -------------------------------------------------------------------------------------------------

    def _set_labels(self, num_labels: int | None, id2label: Any, label2id: Any) -> None:
        if id2label is None:
            self.id2label, self.label2id = label_maps(DEFAULT_NUM_LABELS if num_labels is None else num_labels)
            if label2id is not None:
                self.label2id = dict(label2id)
            return
        where = f"{type(self).__name__}.id2label"
        self.id2label = int_keys(where, id2label)
        if num_labels is not None and num_labels != len(self.id2label):
            raise ConfigError(f"{where} has {len(self.id2label)} labels, but num_labels is {num_labels}; give only one")
        self.label2id = dict(label2id) if label2id else {label: index for index, label in self.id2label.items()}

    def __setattr__(self, name: str, value: Any) -> None:
        name = self.attribute_map.get(name, name)
        super().__setattr__(name, dtype_name(value) if name == "dtype" else value)

    def __getattr__(self, name: str) -> Any:
        # Only called for what ordinary look-up does not find.
        if name in type(self).attribute_map:
            return getattr(self, type(self).attribute_map[name])
        if name in GENERATION_DEFAULTS:
            return GENERATION_DEFAULTS[name]
        # With `name` and `obj`, Python adds "Did you mean ...?" when it prints the error, and only then.
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}", name=name, obj=self)

    @property
    def name_or_path(self) -> str:
        """The name or folder that this configuration was read from, or ""."""
        return self._name_or_path

    @name_or_path.setter
    def name_or_path(self, value: str | os.PathLike[str] | None) -> None:
        self._name_or_path = str(value or "")

    @property
    def torch_dtype(self) -> str | None:
        """The older name of `dtype`: the name of the weights' dtype, or None."""
        return self.dtype

    @torch_dtype.setter
    def torch_dtype(self, value: Any) -> None:
        self.dtype = value

    @property
    def use_return_dict(self) -> bool:
        """Whether a model returns a ModelOutput (True) or a tuple when the call does not say."""
        return bool(self.return_dict and not self.torchscript)

    @property
    def num_labels(self) -> int:
        """The number of labels; setting another number gives the labels the names LABEL_0, LABEL_1, ..."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, value: int) -> None:
        if value != len(self.id2label):
            self.id2label, self.label2id = label_maps(value)

    def update(self, config_dict: Mapping[str, Any]) -> None:
        """Set every item of `config_dict` as an attribute."""
        for name, value in config_dict.items():
            setattr(self, name, value)

    def generation_fields(self) -> dict[str, Any]:
        """Return the text-generation settings that this configuration was given, as old config.json files have them."""
        return {name: value for name, value in self.__dict__.items() if name in GENERATION_DEFAULTS}

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"

    # --- out --------------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes, nested configurations as dictionaries, in a copy that may be changed."""
        values = {name: plain(value) for name, value in self.__dict__.items() if name not in _UNSAVED}
        return {**values, "model_type": self.model_type, "modelwright_version": __version__}

    def to_diff_dict(self) -> dict[str, Any]:
        """Return what config.json needs: without the values that equal the defaults shared by all models."""
        kept = difference(self.to_dict(), self._class_defaults(), common_values())
        for name in kept:
            value = self.__dict__.get(name)
            if isinstance(value, PretrainedConfig):
                kept[name] = value.to_diff_dict()
                del kept[name]["modelwright_version"]  # The outermost one holds for all.
        return kept

    @classmethod
    def _class_defaults(cls) -> dict[str, Any]:
        if cls is PretrainedConfig or cls.has_no_defaults_at_init:
            return {}
        parameters = inspect.signature(cls).parameters.values()
        variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        needs_arguments = any(p.default is p.empty and p.kind not in variable for p in parameters)
        return {} if needs_arguments else cls().to_dict()

    def to_json_string(self, use_diff: bool = True) -> str:
        """Return the text of config.json; all attributes with `use_diff=False`.

        Raises ConfigError that names the attribute whose value JSON does not have.
        """
        values = self.to_diff_dict() if use_diff else self.to_dict()
        return dump_json(values, where=type(self).__name__)

    def to_json_file(self, json_file_path: str | os.PathLike[str], use_diff: bool = True) -> None:
        """Write `to_json_string(use_diff)` to a file, in one step; raise RepoError if that is impossible."""
        write_text(json_file_path, self.to_json_string(use_diff))

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], *, push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """Write config.json into the folder `save_directory`, which is made if it is missing.

        The code of a class that was registered for an auto class (`register_for_auto_class`) is written beside it.
        push_to_hub: upload it as one commit; the other keywords are those of `push_to_hub`.
        Raises RepoError if the folder cannot be made or the file cannot be written, HubError if the upload is refused.
        """
        push = take_push(self, save_directory, push_to_hub, kwargs)
        folder = Path(save_directory).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise RepoError(f"{folder}: expected a folder to save the config in, found a file") from None
        except OSError as error:
            raise RepoError(f"{folder}: the folder cannot be made: {error.strerror or error}") from error
        config: PretrainedConfig = self
        files: dict[str, str] = {}
        if self._auto_class is not None:
            config = copy.deepcopy(self)
            files = config.note_code([type(self)])
        for name, text in files.items():
            write_text(folder / name, text)
        config.to_json_file(folder / CONFIG_NAME)
        if push is not None:
            publish(folder, (CONFIG_NAME, *files), push)

    def note_code(self, classes: Iterable[type[AutoClassMixin]]) -> dict[str, str]:
        """Name in `auto_map` those of the `classes` that are registered, and return their files as {name: text}."""
        auto_map, files = code_to_save(classes)
        if auto_map:
            self.auto_map = {**getattr(self, "auto_map", {}), **auto_map}
        return files

    # --- in ---------------------------------------------------------------------------------------------------------

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: Literal[True],
        **kwargs: Any,
    ) -> tuple[Self, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: Literal[False] = False,
        **kwargs: Any,
    ) -> Self: ...

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        return_unused_kwargs: bool = False,
        **kwargs: Any,
    ) -> Self | tuple[Self, dict[str, Any]]:
        """Read the configuration from a folder with a config.json, or from a JSON file.

        A repository of the hub is read as `revision`, `cache_dir`, `token`, `local_files_only` and `force_download`
        say (see `modelwright.hub.download`). `subfolder` names a folder inside. Other keywords that name an attribute
        override the file. With `return_unused_kwargs` the result is (config, the other keywords); without it they raise
        UnknownArgumentError.
        Raises RepoError if there is no such file, ConfigError if it is damaged or belongs to another `model_type`.
        """
        values, kwargs = cls.get_config_dict(pretrained_model_name_or_path, **kwargs)
        place = str(pretrained_model_name_or_path)
        cls._check_model_type(values, place)
        kwargs.setdefault("name_or_path", place)
        try:
            config, unused = cls._from_dict(values, kwargs)
        except ConfigError as error:
            raise ConfigError(f"the config of {place}: {error}") from error
        return (config, unused) if return_unused_kwargs else config._without(unused)

    @classmethod
    def _check_model_type(cls, values: Mapping[str, Any], place: str) -> None:
        found = values.get("model_type")
        if found and cls.model_type and found not in (cls.model_type, *cls.compatible_model_types):
            raise ConfigError(
                f"the config of {place} has model_type {found!r}, but {cls.__name__} reads {cls.model_type!r}; "
                "use AutoConfig, or the class of that family"
            )

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *, subfolder: str = "", **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what the config.json of a folder (or a JSON file) holds, and the keywords that do not say where.

        Of a hub repository, "_commit_hash" is the commit that was read.
        """
        download, rest = take_download(f"{cls.__name__}.from_pretrained", kwargs)
        path = Path(pretrained_model_name_or_path).expanduser()
        if path.is_file():
            download.say_unused(str(path))
            return read_json(path), rest
        return read_config(open_repo(pretrained_model_name_or_path, subfolder=subfolder, download=download)), rest

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike[str]) -> Self:
        """Read a JSON file; raise RepoError or ConfigError as `from_pretrained` does."""
        return cls.from_dict(read_json(json_file))

    @overload
    @classmethod
    def from_dict(
        cls, config_dict: Mapping[str, Any], *, return_unused_kwargs: Literal[True], **kwargs: Any
    ) -> tuple[Self, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_dict(
        cls, config_dict: Mapping[str, Any], *, return_unused_kwargs: Literal[False] = False, **kwargs: Any
    ) -> Self: ...

    @classmethod
    def from_dict(
        cls, config_dict: Mapping[str, Any], *, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Self | tuple[Self, dict[str, Any]]:
        """Make a configuration of the items of `config_dict`; keywords that name an attribute override them.

        Raises UnknownArgumentError for other keywords, unless `return_unused_kwargs` asks for (config, other keywords).
        """
        config, unused = cls._from_dict(config_dict, kwargs)
        return (config, unused) if return_unused_kwargs else config._without(unused)

    def _without(self, unused: Mapping[str, Any]) -> Self:
        for name in unused:
            hint = nearest(name, self)
            raise UnknownArgumentError(f"{type(self).__name__} has no attribute {name!r} to override.{hint}")
        return self

    @classmethod
    def _from_dict(cls, config_dict: Mapping[str, Any], kwargs: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """Return the configuration and the keywords that name none of its attributes."""
        known = cls._constructor_keywords()
        # What the constructor takes goes through it, so that values that depend on it are computed from it.
        overrides = cls._canonical({name: value for name, value in kwargs.items() if name in known}, known)
        values = cls._merge(cls._canonical(config_dict, known), overrides)
        if values.get("model_type") == cls.model_type:
            del values["model_type"]
        config = cls(**values)
        others = {name: value for name, value in kwargs.items() if name not in known}
        config.update({name: value for name, value in others.items() if hasattr(config, name)})
        return config, {name: value for name, value in others.items() if not hasattr(config, name)}

    @classmethod
    def _own_keywords(cls) -> set[str]:
        """Return the parameters of the constructors of this class and its bases."""
        names = set()
        for base in cls.__mro__:
            constructor = vars(base).get("__init__")
            if inspect.isfunction(constructor):
                parameters = list(inspect.signature(constructor).parameters.values())[1:]
                names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        return names

    @classmethod
    def _constructor_keywords(cls) -> set[str]:
        """Return the keywords that the constructor understands, under all their names."""
        names = {*COMMON_DEFAULTS, *GENERATION_DEFAULTS, *_SPECIAL_KEYWORDS, *cls._own_keywords()}
        return names | {alias for alias, name in cls.attribute_map.items() if name in names}

    @classmethod
    def _canonical(cls, values: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
        """Return `values` under the constructor's own names; where two names of one thing are given, that one wins."""
        own = cls._own_keywords()
        renamed = {}
        for name, value in values.items():
            target = cls.attribute_map.get(name, name)
            if target == name or name in own or target not in known:
                renamed[name] = copy.deepcopy(value)
            elif target not in values:
                renamed[target] = copy.deepcopy(value)
        return renamed

    @classmethod
    def _merge(cls, values: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
        """Return `values` with `overrides` above them, with labels and dtype saying the same under all their names."""
        labels = values.get("id2label")
        if "num_labels" in overrides or "id2label" in overrides:
            if labels is None or "id2label" in overrides or len(labels) != overrides["num_labels"]:
                for name in ("num_labels", "id2label", "label2id"):
                    values.pop(name, None)
        elif labels is not None and values.get("num_labels", len(labels)) != len(labels):
            logger.warning(
                "a config has num_labels %s and %d names in id2label; id2label holds",
                values.pop("num_labels"),
                len(labels),
            )
        if "dtype" in overrides or "torch_dtype" in overrides:
            values.pop("dtype", None)
            values.pop("torch_dtype", None)
        return {**values, **overrides}


def read_config(repo: Repo) -> dict[str, Any]:
    """Return what the config.json of `repo` holds, with "_commit_hash" if it is a hub repository."""
    values = read_json(repo.path(CONFIG_NAME))
    return values if repo.commit_hash is None else {**qualify(values, repo.name), "_commit_hash": repo.commit_hash}


# The spelling of later versions.
PreTrainedConfig = PretrainedConfig
