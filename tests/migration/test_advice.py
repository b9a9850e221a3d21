"""What migrate says about arguments is what loading does with them."""

import pytest

from modelwright import _public
from modelwright.hub.download import take_download
from modelwright.migration.advice import DIFFERENCES, REFUSED_ARGUMENTS, RUNS_MODELS, is_model
from modelwright.migration.destinations import OUT_OF_SCOPE
from modelwright.pretrained.legacy_keywords import LEGACY, Refused, settle


def test_the_refused_keywords_are_those_of_loading() -> None:
    refused = {name for name, rule in LEGACY.items() if isinstance(rule, Refused)}
    assert set(REFUSED_ARGUMENTS) == refused | {"proxies"}


@pytest.mark.parametrize("name", sorted(set(REFUSED_ARGUMENTS) - {"proxies"}))
def test_the_harmless_values_are_those_of_loading(name: str) -> None:
    for value in REFUSED_ARGUMENTS[name].values:
        assert settle("here", {name: value}) == {}
    with pytest.raises(NotImplementedError, match=name):
        settle("here", {name: "something"})


def test_proxies_are_refused_and_none_is_harmless() -> None:
    assert take_download("here", {"proxies": None})[1] == {}
    with pytest.raises(NotImplementedError, match="HTTPS_PROXY"):
        take_download("here", {"proxies": {"https": "x"}})


def test_what_runs_models_is_out_of_scope() -> None:
    assert set(RUNS_MODELS) <= OUT_OF_SCOPE


def test_names_of_model_classes_are_known() -> None:
    classes = [
        name
        for home, names in _public.PUBLIC.items()
        if ".modeling_" in home or home.endswith((".backbone", ".heads", "_heads"))
        for name in names
        if home.startswith("modelwright.models") and not name.endswith("Output")
    ]
    assert {name for name in classes if not is_model(name)} == {"QDQBertLayer"}
    assert not any(map(is_model, ("BertConfig", "BertTokenizer", "DataCollatorForSeq2Seq", "logging")))


def test_the_differences_are_about_models() -> None:
    assert all(map(is_model, DIFFERENCES))
