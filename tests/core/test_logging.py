"""Handlers, formats and propagation of the library's root logger, which scripts for 4.x set at their start."""

import io
import logging as standard
from collections.abc import Iterator

import pytest

from modelwright.core.errors import InputError
from modelwright.utils import logging


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.get_logger()
    before = (list(root.handlers), root.propagate)
    yield
    root.handlers[:], root.propagate = before
    logging.reset_format()


def test_the_default_handler_is_taken_away_and_put_back_once(capsys: pytest.CaptureFixture[str]) -> None:
    logging.disable_default_handler()
    logging.get_logger("modelwright.x").warning("unheard")
    logging.enable_default_handler()
    logging.enable_default_handler()
    logging.get_logger("modelwright.x").warning("heard")
    assert capsys.readouterr().err == "heard\n"


def test_a_handler_of_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    handler = standard.StreamHandler(stream)
    logging.add_handler(handler)
    logging.enable_explicit_format()
    logging.get_logger("modelwright.x").warning("told")
    assert stream.getvalue().startswith("[WARNING|test_logging.py:")
    assert stream.getvalue().endswith(" >> told\n")
    logging.reset_format()
    logging.get_logger("modelwright.x").warning("bare")
    assert capsys.readouterr().err.endswith("\nbare\n")
    logging.remove_handler(handler)
    with pytest.raises(InputError, match="expected a handler of the library's root logger"):
        logging.remove_handler(handler)


def test_propagation(caplog: pytest.LogCaptureFixture) -> None:
    logging.disable_propagation()
    logging.get_logger("modelwright.x").warning("here only")
    logging.enable_propagation()
    logging.get_logger("modelwright.x").warning("there, too")
    assert caplog.messages == ["there, too"]
