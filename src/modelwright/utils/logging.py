"""The import path transformers.utils.logging of 4.x code; the names live elsewhere."""
# Made by tools/make_doors.py from _public.py; change the table, not this file.

from typing import TYPE_CHECKING

from modelwright._public import DOORS
from modelwright.core.lazy import serve

if TYPE_CHECKING:
    from modelwright.core.logging import (
        CRITICAL,
        DEBUG,
        ERROR,
        FATAL,
        INFO,
        NOTSET,
        WARN,
        WARNING,
        add_handler,
        disable_default_handler,
        disable_propagation,
        enable_default_handler,
        enable_explicit_format,
        enable_propagation,
        get_logger,
        get_verbosity,
        remove_handler,
        reset_format,
        set_verbosity,
        set_verbosity_debug,
        set_verbosity_error,
        set_verbosity_info,
        set_verbosity_warning,
    )

__all__ = [
    "CRITICAL",
    "DEBUG",
    "ERROR",
    "FATAL",
    "INFO",
    "NOTSET",
    "WARN",
    "WARNING",
    "add_handler",
    "disable_default_handler",
    "disable_propagation",
    "enable_default_handler",
    "enable_explicit_format",
    "enable_propagation",
    "get_logger",
    "get_verbosity",
    "remove_handler",
    "reset_format",
    "set_verbosity",
    "set_verbosity_debug",
    "set_verbosity_error",
    "set_verbosity_info",
    "set_verbosity_warning",
]

__getattr__, __dir__ = serve(__name__, DOORS[__name__])
