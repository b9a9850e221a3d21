"""What `strict` means."""

import pytest

from modelwright.checkpoint.strictness import Strictness
from modelwright.core.errors import InputError


@pytest.mark.parametrize(
    ("strict", "ignore", "expected"),
    [
        (False, False, ("warn", "warn", "error")),
        (True, False, ("error", "error", "error")),
        (False, True, ("warn", "warn", "warn")),
        ({}, False, ("warn", "warn", "error")),
        ({"missing": "error"}, False, ("error", "warn", "error")),
        ({"unexpected": "ignore", "mismatched": "warn"}, False, ("warn", "ignore", "warn")),
        ({"mismatched": "ignore"}, True, ("warn", "warn", "ignore")),
        ({"missing": "ignore"}, True, ("ignore", "warn", "warn")),
    ],
)
def test_all_spellings(strict, ignore, expected):
    made = Strictness.of("X", strict, ignore)
    assert (made.missing, made.unexpected, made.mismatched) == expected


@pytest.mark.parametrize(
    ("strict", "hint"),
    [
        ({"mising": "error"}, "Did you mean 'missing'"),
        ({"missing": "errors"}, "Did you mean 'error'"),
        ({"missing": True}, "got {'missing': True}"),
        ("error", "got 'error'"),
        (None, "got None"),
    ],
)
def test_what_is_none(strict, hint):
    with pytest.raises(InputError, match=r"X: expected strict to be True, False or \{\"missing\"") as caught:
        Strictness.of("X", strict)
    assert hint in str(caught.value)


@pytest.mark.parametrize("strict", [True, {"mismatched": "error"}])
def test_a_contradiction(strict):
    with pytest.raises(InputError, match="and ignore_mismatched_sizes=True does not; drop one"):
        Strictness.of("X", strict, ignore_mismatched_sizes=True)
