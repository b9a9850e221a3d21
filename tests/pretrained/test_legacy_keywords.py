"""The 4.x keywords that load nothing: said once, or refused with the reason."""

import pytest

from modelwright.core.errors import InputError
from modelwright.pretrained.legacy_keywords import HUB, LEGACY, Refused, settle


def test_others_are_handed_back(said):
    assert settle("X", {"num_labels": 3, "revision": "main", "cache_dir": None}) == {"num_labels": 3}
    assert said() == []


def test_hub_keywords_are_said_once_without_their_value(said):
    for _ in range(2):
        assert settle("X", {"token": "hf_secret", "local_files_only": True, "force_download": False}) == {}
    assert said() == [
        "X: token has no effect here: it is about downloads, and the model is a local folder.",
        "X: local_files_only has no effect here: it is about downloads, and the model is a local folder.",
    ]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("revision", 3, "str"),
        ("force_download", "yes", "bool"),
        ("cache_dir", 1, "str or a path"),
        ("proxies", "p", "dict"),
    ],
)
def test_hub_keywords_of_a_wrong_type_are_refused(name, value, expected):
    with pytest.raises(InputError, match=f"X: expected {name} to be {expected} or None, got {value!r}"):
        settle("X", {name: value})


def test_both_names_of_the_token_are_refused():
    with pytest.raises(InputError, match="expected token or use_auth_token"):
        settle("X", {"token": "a", "use_auth_token": "a"})


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


def test_another_table_leaves_the_rest_alone():
    assert settle("X", {"from_tf": True, "revision": "main"}, HUB) == {"from_tf": True}
