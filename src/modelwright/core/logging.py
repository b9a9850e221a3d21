"""modelwright's loggers: the standard library's, below one root, with `warning_once` and `info_once`.

The verbosity starts from the environment variable MODELWRIGHT_VERBOSITY (debug, info, warning, error, critical) and is
"warning" by default. Only the "modelwright" logger is configured, never the process's root logger.
"""

import logging
import os
import sys
import threading
from typing import cast

from modelwright.core.errors import InputError

CRITICAL, FATAL, ERROR, WARNING, WARN, INFO, DEBUG, NOTSET = (
    logging.CRITICAL,
    logging.FATAL,
    logging.ERROR,
    logging.WARNING,
    logging.WARNING,
    logging.INFO,
    logging.DEBUG,
    logging.NOTSET,
)
_ROOT = "modelwright"
_LEVELS = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR, "critical": CRITICAL}
_lock = threading.Lock()
_said: set[tuple[str, str]] = set()


class Logger(logging.Logger):
    """A standard logger that can also say a sentence only once in the life of the process."""

    def warning_once(self, message: str) -> None:
        """Log `message` as a warning the first time that this logger is given it."""
        self._once(WARNING, message)

    def info_once(self, message: str) -> None:
        """Log `message` as information the first time that this logger is given it."""
        self._once(INFO, message)

    def _once(self, level: int, message: str) -> None:
        with _lock:
            if (self.name, message) in _said:
                return
            _said.add((self.name, message))
        self.log(level, "%s", message, stacklevel=3)


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what `sys.stderr` is now, so that redirection after import works."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self):  # type: ignore[no-untyped-def]
        return sys.stderr


def get_logger(name: str | None = None) -> Logger:
    """Return the logger `name` below "modelwright" (a module's `__name__`, or None for the root of the library)."""
    name = name or _ROOT
    if name != _ROOT and not name.startswith(_ROOT + "."):
        name = f"{_ROOT}.{name}"
    with _lock:
        known = logging.Logger.manager.loggerDict.get(name)
        if not isinstance(known, Logger):
            # One class for our loggers without logging.setLoggerClass, which would change everybody's.
            logging.Logger.manager.loggerDict.pop(name, None)
            previous = logging.Logger.manager.loggerClass
            logging.Logger.manager.loggerClass = Logger
            try:
                known = logging.getLogger(name)
            finally:
                logging.Logger.manager.loggerClass = previous
            if name == _ROOT:
                known.addHandler(_StderrHandler())
                known.setLevel(_LEVELS.get(os.environ.get("MODELWRIGHT_VERBOSITY", "").lower(), WARNING))
    return cast(Logger, known)


def forget_once() -> None:
    """Let every "once" message be said again; for tests."""
    with _lock:
        _said.clear()


def get_verbosity() -> int:
    """Return the level of the library's root logger, a number of the standard `logging` module."""
    return get_logger().getEffectiveLevel()


def set_verbosity(verbosity: int) -> None:
    """Set the level of the library's root logger, a number of the standard `logging` module."""
    get_logger().setLevel(verbosity)


def set_verbosity_debug() -> None:
    """Show everything."""
    set_verbosity(DEBUG)


def set_verbosity_info() -> None:
    """Show information, warnings and errors."""
    set_verbosity(INFO)


def set_verbosity_warning() -> None:
    """Show warnings and errors (the default)."""
    set_verbosity(WARNING)


def set_verbosity_error() -> None:
    """Show errors only."""
    set_verbosity(ERROR)


def add_handler(handler: logging.Handler) -> None:
    """Let a handler have what the library logs, too."""
    get_logger().addHandler(handler)


def remove_handler(handler: logging.Handler) -> None:
    """Take a handler away; raise InputError if the library's root logger does not have it."""
    if handler not in get_logger().handlers:
        raise InputError(f"remove_handler: expected a handler of the library's root logger, got {handler!r}")
    get_logger().removeHandler(handler)


def enable_default_handler() -> None:
    """Write what is logged to stderr (the default)."""
    if not any(isinstance(handler, _StderrHandler) for handler in get_logger().handlers):
        add_handler(_StderrHandler())


def disable_default_handler() -> None:
    """Stop writing what is logged to stderr."""
    for handler in [each for each in get_logger().handlers if isinstance(each, _StderrHandler)]:
        get_logger().removeHandler(handler)


def enable_propagation() -> None:
    """Hand what is logged on to the handlers of the process's root logger, too (the default)."""
    get_logger().propagate = True


def disable_propagation() -> None:
    """Keep what is logged from the handlers of the process's root logger."""
    get_logger().propagate = False


def enable_explicit_format() -> None:
    """Show level, file, line and time before each message."""
    for handler in get_logger().handlers:
        handler.setFormatter(logging.Formatter("[%(levelname)s|%(filename)s:%(lineno)s] %(asctime)s >> %(message)s"))


def reset_format() -> None:
    """Show the bare messages (the default)."""
    for handler in get_logger().handlers:
        handler.setFormatter(None)


get_logger()
