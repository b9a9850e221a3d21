"""The toy models as a fixture."""

import importlib.util
from pathlib import Path

import pytest

from modelwright.core import logging


@pytest.fixture(scope="session")
def toys():
    """The module toy_models.py beside this file (pytest's importlib mode puts no test folder on the path)."""
    spec = importlib.util.spec_from_file_location("modelwright_tests_toys", Path(__file__).with_name("toy_models.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def said(caplog):
    """A function that returns the messages logged so far; "once" messages can be said again."""
    logging.forget_once()
    return lambda: [record.getMessage() for record in caplog.records]
