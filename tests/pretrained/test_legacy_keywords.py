"""The 4.x keywords that load nothing: said once, or refused with the reason."""

import pytest

from modelwright.pretrained.legacy_keywords import LEGACY, Refused, settle


def test_others_are_handed_back(said):
    assert settle("X", {"num_labels": 3, "low_cpu_mem_usage": None}) == {"num_labels": 3}
    assert said() == []


@pytest.mark.parametrize(
    ("name", "so_anyway"),
    [("low_cpu_mem_usage", True), ("_fast_init", True), ("offload_state_dict", True), ("trust_remote_code", False)],
)
def test_keywords_without_effect_say_why_once(said, name, so_anyway):
    settle("X", {name: None})
    settle("X", {name: so_anyway})
    assert said() == []
    for _ in range(2):
        assert settle("X", {name: not so_anyway}) == {}
    assert len(said()) == 1
    assert said()[0].startswith(f"X: {name}={not so_anyway} changes nothing: ")


@pytest.mark.parametrize("name", [name for name, rule in LEGACY.items() if isinstance(rule, Refused)])
def test_refused_keywords_say_why_and_harmless_values_nothing(said, name):
    for harmless in LEGACY[name].harmless:
        assert settle("X", {name: harmless}) == {}
    assert said() == []
    with pytest.raises(NotImplementedError, match=f"X: {name}=.* is not possible: .{{20}}"):
        settle("X", {name: 5})
