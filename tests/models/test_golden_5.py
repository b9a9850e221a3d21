"""GPT-2 and Llama against what transformers 5 computed: logits, gradients, greedy tokens, with and without cache."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

import modelwright
from modelwright.attention.caches import StaticCache
from modelwright.core import logging

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "golden_5.json").read_text(encoding="utf-8"))
CASES = {case["name"]: case for case in GOLDEN["cases"]}
_spec = importlib.util.spec_from_file_location("make_golden_5", HERE / "make_golden_5.py")
recipe = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(recipe)


@pytest.fixture(autouse=True)
def quiet():
    logging.set_verbosity_error()
    yield
    logging.set_verbosity_warning()


def build(case, kernel="sdpa"):
    model_class = getattr(modelwright, case["class"])
    config = model_class.config_class(**case["config"], attn_implementation=kernel)
    return recipe.fill(model_class(config))


def assert_close(found, expected, name):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5, msg=lambda text: f"{name}: {text}")


def test_the_file_says_where_it_is_from():
    assert GOLDEN["peer"] == "transformers 5.23.0"
    assert [case[0] for case in recipe.cases()] == list(CASES)
    assert [case[2:] for case in recipe.cases()] == [(case["config"], case["call"]) for case in CASES.values()]


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("name", CASES)
def test_logits_gradients_and_greedy_tokens(name, kernel):
    case = CASES[name]
    found = recipe.measure(build(case, kernel), case["call"])
    seen = torch.tensor(case["call"].get("attention_mask", [[1], [1]])).bool().expand(2, len(case["logits"][0]))
    mine, theirs = (torch.tensor(each["logits"]) for each in (found, case))
    assert_close(mine[seen], theirs[seen], "logits")
    assert found["gradients"].keys() == case["gradients"].keys()
    for parameter, numbers in case["gradients"].items():
        mine, theirs = (torch.tensor(each) for each in (found["gradients"][parameter], numbers))
        scale = theirs[0].clamp(min=1e-3)
        assert_close(mine / scale, theirs / scale, parameter)
    assert found["tokens"] == case["tokens"]


# A sequence that outgrows the model keeps the base of its prompt in a cache, and without one gets a new base each step.
@pytest.mark.parametrize("name", [name for name in CASES if name != "llama, dynamic, long"])
def test_greedy_tokens_without_cache_in_a_static_one_and_alone(name):
    case = CASES[name]
    model, call = build(case), case["call"]
    ids, expected = torch.tensor(call["input_ids"]), torch.tensor(case["tokens"])
    mask = torch.tensor(call["attention_mask"]) if "attention_mask" in call else None
    assert torch.equal(model.generate(ids, attention_mask=mask, max_new_tokens=10, use_cache=False), expected)
    static = StaticCache(model.config, max_cache_len=ids.shape[1] + 10)
    assert torch.equal(model.generate(ids, attention_mask=mask, max_new_tokens=10, past_key_values=static), expected)
    for row in range(2):
        first = 0 if mask is None else call["attention_mask"][row].index(1)
        alone = model.generate(ids[row : row + 1, first:], max_new_tokens=10)
        assert torch.equal(alone[0], expected[row, first:])
