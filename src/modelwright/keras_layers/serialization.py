"""keras_serializable: layers and models that take a configuration, saved by Keras together with it."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from modelwright.config.configuration import PretrainedConfig
from modelwright.core.errors import ConfigError
from modelwright.core.logging import get_logger
from modelwright.keras_layers.errors import ConfigClassError, ConfigTypeError
from modelwright.keras_layers.keras_api import keras, ops

logger = get_logger(__name__)

KEY = "transformers_config"
_OTHER_KEY = "config"
_PACKAGE = "modelwright"
# Where an instance keeps what it was made of. Set in the instance's dictionary itself, so that Keras does not wrap it.
_MADE_OF = "_modelwright_made_of"
_CALLED_WITH = "_modelwright_called_with"
_TENSOR = "tensor"
# JAX, by default, has no numbers of 64 bits, and warns of each request.
_NARROW = {"float64": "float32", "int64": "int32", "uint64": "uint32"}

LayerClass = TypeVar("LayerClass", bound=type[Any])


def keras_serializable(cls: LayerClass) -> LayerClass:
    """Decorate a Keras layer or model whose constructor takes a configuration, so that Keras can save and load it.

    The class has `config_class`, a PretrainedConfig, and a constructor whose first argument, or keyword `config`, is
    the configuration: an object of that class, or its dictionary. `get_config` writes the configuration under
    "transformers_config", beside the other arguments of the constructor; a `get_config` of the class's own is kept. The
    constructor also takes the dictionary as the keyword `transformers_config` (what Keras passes when it loads), and as
    `config`, as files by transformers have it. The class is registered, so `keras.models.load_model` needs no
    `custom_objects`, only that the module of the class has been imported. The shapes and dtypes of the first call are
    saved as well, from which the weights are made before they are loaded; Keras's own way knows only the shapes, and
    leaves a model that takes ids with new weights.

    Raises ConfigTypeError (a TypeError and a ValueError) for a class that is no Keras layer and, in the constructor,
    for a configuration of another type; ConfigClassError (an AttributeError) if `config_class` is missing.
    """
    if not isinstance(cls, type) or not issubclass(cls, keras.layers.Layer):
        raise ConfigTypeError(f"@keras_serializable: expected a subclass of keras.layers.Layer, got {cls!r}")
    config_class = getattr(cls, "config_class", None)
    if not isinstance(config_class, type) or not issubclass(config_class, PretrainedConfig):
        found = "it has none" if config_class is None else f"got {config_class!r}"
        raise ConfigClassError(
            f"@keras_serializable: {cls.__name__} must set config_class to a subclass of PretrainedConfig; {found}"
        )
    cls.__init__ = _taking_dictionaries(cls, cls.__init__, config_class)
    if getattr(cls.get_config, "_is_default", False):
        cls.get_config = _get_config
    if cls.build_from_config in (keras.Model.build_from_config, keras.layers.Layer.build_from_config):
        cls.__call__ = _recording(cls.__call__)
        cls.get_build_config = _with_the_first_call(cls.get_build_config)
        cls.build_from_config = _by_a_call(cls.build_from_config)
    _register(cls)
    return cls


def _register(cls: type) -> None:
    name = f"{_PACKAGE}>{cls.__name__}"
    other = keras.saving.get_registered_object(name)
    if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
        logger.warning(
            "@keras_serializable: %s.%s takes the name %s from %s.%s; models with the earlier class can no longer be "
            "loaded in this process",
            cls.__module__, cls.__qualname__, name, other.__module__, other.__qualname__,
        )  # fmt: skip
    keras.saving.register_keras_serializable(package=_PACKAGE)(cls)


def _taking_dictionaries(cls: type, initialize: Any, config_class: type[PretrainedConfig]) -> Any:
    """Return the constructor `initialize`, which may then be given the configuration in every form that is allowed."""
    signature = inspect.signature(initialize)

    @functools.wraps(initialize)
    def wrapped(self: Any, *given: Any, **keywords: Any) -> None:
        sources = [name for name in (KEY, _OTHER_KEY) if keywords.get(name) is not None]
        if len(sources) + bool(given) > 1:
            names = [*(["the first argument"] if given else []), *sources]
            raise ConfigError(f"{cls.__name__} got its configuration twice: as {' and as '.join(names)}")
        loading = keywords.pop(KEY, None)
        source = loading if loading is not None else given[0] if given else keywords.pop(_OTHER_KEY, None)
        keywords.pop(_OTHER_KEY, None)
        config = _as_config(cls, source, config_class)
        if not given:
            keywords = {name: _revived(value) for name, value in keywords.items()}
        initialize(self, config, *given[1:], **keywords)
        bound = signature.bind(self, config, *given[1:], **keywords)
        vars(self)[_MADE_OF] = (config, _flat(signature, bound))

    # Keras reads the signature in two ways, of which one sees through `functools.wraps` and one does not.
    wrapped.__signature__ = signature  # type: ignore[attr-defined]
    return wrapped


def _as_config(cls: type, source: Any, config_class: type[PretrainedConfig]) -> PretrainedConfig:
    if isinstance(source, config_class):
        return source
    if isinstance(source, Mapping):
        return config_class.from_dict(dict(source))
    found = "nothing" if source is None else f"a {type(source).__name__}"
    raise ConfigTypeError(
        f"{cls.__name__}: expected config to be a {config_class.__name__} or its dictionary, got {found}"
    )


def _revived(value: Any) -> Any:
    """Return the Keras object that a dictionary describes, or any other value as it is."""
    described = isinstance(value, dict) and {"class_name", "config", "module"} <= set(value)
    return keras.saving.deserialize_keras_object(value) if described else value


def _flat(signature: inspect.Signature, bound: inspect.BoundArguments) -> dict[str, Any]:
    """Return the arguments but for `self` and the configuration, by name; those behind ** among them."""
    arguments: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[2:]:
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(value)
        elif signature.parameters[name].kind is not inspect.Parameter.VAR_POSITIONAL:
            arguments[name] = value
    return arguments


def _get_config(self: Any) -> dict[str, Any]:
    """Return the configuration as a dictionary, under "transformers_config", and the other arguments."""
    config, arguments = vars(self)[_MADE_OF]
    parameters = inspect.signature(type(self).__init__).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    base = keras.layers.Layer.get_config(self)
    own = {name: keras.saving.serialize_keras_object(value) for name, value in arguments.items()}
    return {
        **{name: value for name, value in base.items() if takes_all or name in parameters},
        **{name: value for name, value in own.items() if name not in base},
        KEY: config.to_dict(),
    }


# --- the build ------------------------------------------------------------------------------------------------------


def _recording(call: Any) -> Any:
    @functools.wraps(call)
    def wrapped(self: Any, *given: Any, **keywords: Any) -> Any:
        if _CALLED_WITH not in vars(self):
            vars(self)[_CALLED_WITH] = {"args": _described(list(given)), "kwargs": _described(keywords)}
        return call(self, *given, **keywords)

    return wrapped


def _with_the_first_call(get_build_config: Any) -> Any:
    @functools.wraps(get_build_config)
    def wrapped(self: Any) -> Any:
        called_with = vars(self).get(_CALLED_WITH)
        config = get_build_config(self)
        return config if called_with is None else {**(config or {}), _CALLED_WITH: called_with}

    return wrapped


def _by_a_call(build_from_config: Any) -> Any:
    @functools.wraps(build_from_config)
    def wrapped(self: Any, config: dict[str, Any]) -> None:
        called_with = (config or {}).get(_CALLED_WITH)
        if called_with is None:
            build_from_config(self, config)
        else:
            # With numbers, not symbols: a symbolic call would become a node of the model that is being loaded.
            self(*_zeros(called_with["args"]), **_zeros(called_with["kwargs"]))

    return wrapped


def _described(value: Any) -> Any:
    """Return what a call was given, with each tensor's shape (the batch left open) and dtype in its place, for JSON."""
    if isinstance(value, Mapping):
        return {name: _described(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_described(part) for part in value]
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        shape = [size if isinstance(size, int) else None for size in value.shape]
        return {_TENSOR: [[None, *shape[1:]] if shape else [], keras.backend.standardize_dtype(value.dtype)]}
    return value if isinstance(value, bool | int | float | str) else None


def _zeros(value: Any) -> Any:
    """Return what `_described` describes, with tensors of zeros, of size 1 where the size is open."""
    if isinstance(value, dict) and set(value) == {_TENSOR}:
        shape, dtype = value[_TENSOR]
        return ops.zeros([size or 1 for size in shape], dtype=_NARROW.get(dtype, dtype))
    if isinstance(value, dict):
        return {name: _zeros(part) for name, part in value.items()}
    return [_zeros(part) for part in value] if isinstance(value, list) else value
