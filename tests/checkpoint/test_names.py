"""Renames are found both ways, and never take the place of a stored name."""

import re

import pytest

from modelwright.checkpoint.names import Rename, map_names, restore_names
from modelwright.core.errors import CheckpointMismatchError, InputError


@pytest.mark.parametrize(
    ("rule", "name", "renamed"),
    [
        (Rename(r"^encoder\.layer\.(\d+)\.", r"layers.\1."), "encoder.layer.3.w", "layers.3.w"),
        (Rename(r"(\d+)\.(q|k)_proj", r"\2.\1"), "a.3.q_proj.w", "a.q.3.w"),
        (Rename("attn", "attention"), "h.0.attn.w", "h.0.attention.w"),
        (Rename(r"head\.weight$", "out.weight"), "lm.head.weight", "lm.out.weight"),
        (Rename.literal("a.b", "c"), "x.a.b.y", "x.c.y"),
        (Rename.literal("a.b", "c"), "a.b", "c"),
        (Rename(r"[xy]\.w", "z.w", inverse=(r"z\.w", "x.w")), "x.w", "z.w"),
    ],
)
def test_rename_and_back(rule, name, renamed):
    assert rule.apply(name) == renamed
    assert rule.reverse().apply(renamed) == name
    assert rule.reverse().reverse().apply(name) == renamed


def test_literal_needs_whole_components():
    assert Rename.literal("a.b", "c").apply("xa.b.y") == "xa.b.y"
    assert Rename.literal("a.b", "c").apply("axb.y") == "axb.y"


@pytest.mark.parametrize("pattern", [r"\d+", "[ab]", "a|b", "(?:x)", "a*", "((x)y)", "(a)+"])
def test_what_cannot_be_reversed_says_so(pattern):
    with pytest.raises(InputError, match="the way back cannot be derived"):
        Rename(pattern, "x").reverse()


def test_bad_expression():
    with pytest.raises(InputError, match=re.escape("Rename('('): not a regular expression")):
        Rename("(", "x")


def test_base_model_prefix_both_ways():
    assert map_names(["encoder.w", "head.w"], ["bert.encoder.w", "head.w"], base_model_prefix="bert") == {
        "encoder.w": "bert.encoder.w",
        "head.w": "head.w",
    }
    assert map_names(["bert.encoder.w", "head.w"], ["encoder.w"], base_model_prefix="bert") == {
        "bert.encoder.w": "encoder.w"
    }


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrapper_prefixes(prefix):
    assert map_names([prefix + "bert.w"], ["w"], base_model_prefix="bert") == {prefix + "bert.w": "w"}
    assert map_names([prefix + "w"], ["w"]) == {prefix + "w": "w"}


def test_compiled_submodule():
    assert map_names(["a._orig_mod.b"], ["a.b"]) == {"a._orig_mod.b": "a.b"}


def test_a_model_whose_own_name_is_module():
    assert map_names(["module.w"], ["module.w", "w"]) == {"module.w": "module.w"}


def test_gamma_and_beta_of_layer_norm_only():
    stored = ["x.LayerNorm.gamma", "x.LayerNorm.beta", "scale.gamma", "LayerNorm.gamma", "MyLayerNorm.gamma"]
    targets = ["x.LayerNorm.weight", "x.LayerNorm.bias", "scale.weight", "LayerNorm.weight", "MyLayerNorm.weight"]
    assert map_names(stored, targets) == {
        "x.LayerNorm.gamma": "x.LayerNorm.weight",
        "x.LayerNorm.beta": "x.LayerNorm.bias",
        "LayerNorm.gamma": "LayerNorm.weight",
    }


def test_a_parameter_that_is_really_called_gamma():
    assert map_names(["LayerNorm.gamma"], ["LayerNorm.gamma", "LayerNorm.weight"]) == {
        "LayerNorm.gamma": "LayerNorm.gamma"
    }


def test_a_rename_whose_target_is_stored_does_not_apply():
    stored = ["LayerNorm.gamma", "LayerNorm.weight", "module.w", "w"]
    assert map_names(stored, ["LayerNorm.weight", "w"]) == {"LayerNorm.weight": "LayerNorm.weight", "w": "w"}


def test_explicit_rules_come_first_and_chain():
    rules = (Rename("^enc", "encoder"), Rename(r"\.h\.", ".layers."))
    assert map_names(["enc.h.0"], ["encoder.layers.0"], rules=rules) == {"enc.h.0": "encoder.layers.0"}
    assert map_names(["encoder.w"], ["encoder.w", "decoder.w"], rules=(Rename("^encoder", "decoder"),)) == {
        "encoder.w": "decoder.w"
    }


def test_two_names_for_one_target():
    with pytest.raises(CheckpointMismatchError, match=r"'module\.w' and '_orig_mod\.w' both mean the parameter 'w'"):
        map_names(["module.w", "_orig_mod.w"], ["w"])


def test_restore_names_undoes_the_rules():
    rules = (Rename("^enc", "encoder"), Rename(r"\.h\.", ".layers."))
    targets = ["encoder.layers.0", "encoder.layers.1", "head"]
    restored = restore_names(dict.fromkeys(targets), rules)
    assert restored == {"encoder.layers.0": "enc.h.0", "encoder.layers.1": "enc.h.1", "head": "head"}
    assert map_names(restored.values(), targets, rules=rules) == {value: key for key, value in restored.items()}
    with pytest.raises(InputError, match="the same name in a file: 'a'"):
        restore_names({"a": 0, "b": 0}, (Rename("^a$", "b"),))
