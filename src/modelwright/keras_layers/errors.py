"""Errors of this room that are two built-in exceptions at once: ours, and the one that code for 4.x catches."""

from modelwright.core.errors import ConfigError


class ConfigTypeError(ConfigError, TypeError):
    """A configuration of the wrong class."""


class ConfigClassError(ConfigError, AttributeError):
    """A class for `keras_serializable` that does not say which configuration it takes."""


class UnsupportedSummaryError(ConfigError, NotImplementedError):
    """A kind of summary that has a name and no implementation anywhere."""
