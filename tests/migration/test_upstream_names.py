"""Each public name of transformers 4.37.2 and 4.57.1 within scope is here at the same path, or is listed with a reason."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from not_here import NAMES

from modelwright.migration.destinations import destination, moved_module, names_of

TABLE: dict[str, Any] = json.loads((Path(__file__).parent / "upstream_names.json").read_text(encoding="utf-8"))
PATTERNS = {re.compile(pattern): reason for pattern, reason in NAMES.items()}
VERSIONS = pytest.mark.parametrize("table", TABLE["versions"], ids=lambda table: table["version"])


def reason(path: str) -> str | None:
    return next((text for pattern, text in PATTERNS.items() if pattern.fullmatch(path)), None)


def test_the_table_is_of_the_versions_that_we_promise() -> None:
    assert [table["version"] for table in TABLE["versions"]] == ["4.37.2", "4.57.1"]


@VERSIONS
def test_names_of_the_root(table: dict[str, Any]) -> None:
    missing = [f"{home}.{name}" for name, home in table["root"].items() if name not in names_of("modelwright")]
    assert [path for path in missing if reason(path) is None] == []
    assert len(table["root"]) - len(missing) > 100


@VERSIONS
def test_names_of_modules(table: dict[str, Any]) -> None:
    found, missing = 0, []
    for module, names in table["modules"].items():
        for name in names:
            if destination(f"transformers.{module}", name) is None:
                missing.append(f"{module}.{name}")
            else:
                found += 1
    assert [path for path in missing if reason(path) is None] == []
    assert found > 240


@VERSIONS
def test_model_classes_are_at_the_path_of_4x(table: dict[str, Any]) -> None:
    """A name that our root has and that upstream defines in a module of a model is in the module of the same name."""
    elsewhere = [
        f"{module}.{name}"
        for module, names in table["modules"].items()
        if module.startswith("models.")
        for name in names
        if name in names_of("modelwright") and name not in names_of(moved_module(f"transformers.{module}"))
    ]
    assert elsewhere == []


def test_every_reason_is_needed() -> None:
    paths = {f"{home}.{name}" for table in TABLE["versions"] for name, home in table["root"].items()}
    paths |= {f"{module}.{name}" for table in TABLE["versions"] for module, names in table["modules"].items() for name in names}
    unused = [pattern.pattern for pattern in PATTERNS if not any(map(pattern.fullmatch, paths))]
    assert unused == []
