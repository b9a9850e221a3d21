"""The models that tests work with, as fixtures."""

import importlib.util
from pathlib import Path

import pytest

from modelwright.core import logging


def beside(name):
    """Return the module of that name beside this file (pytest's importlib mode puts no test folder on the path)."""
    spec = importlib.util.spec_from_file_location(f"modelwright_tests_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def toys():
    """Small models for the tests of loading and saving."""
    return beside("toy_models")


@pytest.fixture(scope="session")
def third_party():
    """A whole model file as it was written for 4.x."""
    return beside("third_party_model")


@pytest.fixture
def said(caplog):
    """A function that returns the messages logged so far; "once" messages can be said again."""
    logging.forget_once()
    return lambda: [record.getMessage() for record in caplog.records]
