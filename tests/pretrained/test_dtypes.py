"""Which dtype a model is built with."""

import types
from pathlib import Path

import pytest
import torch
from torch import nn

from modelwright.checkpoint.headers import TensorInfo
from modelwright.config.configuration import PretrainedConfig
from modelwright.core.errors import InputError
from modelwright.pretrained.dtypes import resolve, wanted_dtypes
from modelwright.pretrained.modeling import PreTrainedModel


def stored(*items):
    return {
        str(index): TensorInfo(str(index), dtype, (nbytes,), nbytes, Path("file"))
        for index, (dtype, nbytes) in enumerate(items)
    }


@pytest.mark.parametrize("value", [torch.bfloat16, "bfloat16", "torch.bfloat16"])
def test_all_spellings_under_both_names(value):
    assert wanted_dtypes("X", value, None) == wanted_dtypes("X", None, value) == {"": torch.bfloat16}
    assert wanted_dtypes("X", value, torch.bfloat16) == {"": torch.bfloat16}
    assert wanted_dtypes("X", None, {"vision": value}) == {"": None, "vision": torch.bfloat16}
    assert wanted_dtypes("X", None, None) == {"": None}


def test_two_different_wishes_are_an_error():
    with pytest.raises(InputError, match=r"X: expected dtype and torch_dtype .* got dtype='float16' and"):
        wanted_dtypes("X", "float16", torch.float32)


@pytest.mark.parametrize("value", [torch.int64, "int8", "half-precision", 16, True])
def test_other_dtypes_are_refused(value):
    with pytest.raises(InputError, match="X: expected dtype to be a floating-point torch.dtype, its name or 'auto'"):
        wanted_dtypes("X", value, None)


def test_other_dtypes_in_a_dictionary_are_refused():
    with pytest.raises(InputError, match=r"X: expected dtype\['vision'\] to be a floating-point torch.dtype"):
        wanted_dtypes("X", {"vision": "int8"}, None)


def one(wanted, config, found=None):
    return resolve("X", {"": wanted}, config, found)[""]


def test_auto_is_the_configs_then_the_checkpoints_largest_share():
    mixed = stored((torch.int64, 900), (torch.float32, 10), (torch.bfloat16, 30), (torch.float32, 15))

    def config(dtype=None):
        return types.SimpleNamespace(dtype=dtype, sub_configs={})

    assert one(None, config(), mixed) == torch.float32
    assert one("auto", config(), mixed) == torch.bfloat16
    assert one("auto", config(), stored((torch.int64, 9))) == torch.float32
    assert one("auto", config("float16"), mixed) == torch.float16
    assert one(torch.float64, config("float16"), mixed) == torch.float64


class PartConfig(PretrainedConfig):
    model_type = "part"


class PairConfig(PretrainedConfig):
    model_type = "pair"
    sub_configs = {"left": PartConfig, "right": PartConfig}

    def __init__(self, left=None, right=None, **kwargs):
        self.left, self.right = PartConfig(**(left or {})), PartConfig(**(right or {}))
        super().__init__(**kwargs)


class Part(PreTrainedModel):
    config_class = PartConfig
    _keep_in_fp32_modules = ["norm"]

    def __init__(self, config, *, device=None, dtype=None):
        super().__init__(config)
        self.dense = nn.Linear(3, 3, device=device, dtype=dtype)
        self.norm = nn.LayerNorm(3, device=device, dtype=dtype)
        self.post_init()


class Pair(PreTrainedModel):
    config_class = PairConfig

    def __init__(self, config, *, device=None, dtype=None):
        super().__init__(config)
        self.head = nn.Linear(3, 3, device=device, dtype=dtype)
        self.left = Part(config.left, device=device, dtype=dtype)
        self.right = Part(config.right, device=device, dtype=dtype)
        self.post_init()


def dtypes_of(model):
    parts = {"head": model.head, "left": model.left.dense, "left norm": model.left.norm, "right": model.right.dense}
    return {name: str(part.weight.dtype).removeprefix("torch.") for name, part in parts.items()}


def test_each_part_has_its_own(tmp_path):
    Pair(PairConfig()).save_pretrained(tmp_path)

    def load(dtype):
        return Pair.from_pretrained(tmp_path, dtype=dtype)

    expected = {"head": "float32", "left": "float16", "left norm": "float32", "right": "float32"}
    assert dtypes_of(load({"left": "float16"})) == expected
    assert dtypes_of(load("float16")) == {name: "float32" if "norm" in name else "float16" for name in expected}
    mixed = load({"": "bfloat16", "left": torch.float64})
    assert dtypes_of(mixed) == {"head": "bfloat16", "left": "float64", "left norm": "float64", "right": "bfloat16"}
    assert (mixed.config.dtype, mixed.config.left.dtype) == ("bfloat16", "float64")
    mixed.save_pretrained(tmp_path / "mixed")
    again = Pair.from_pretrained(tmp_path / "mixed", dtype={"": "auto", "left": "auto"})
    assert dtypes_of(again) == dtypes_of(mixed)
    assert torch.equal(again.left.dense.weight, mixed.left.dense.weight)
    assert dtypes_of(Pair.from_config(PairConfig(), dtype={"right": "float16"}))["right"] == "float16"


def test_a_part_that_does_not_exist(tmp_path):
    Pair(PairConfig()).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"of PairConfig \('left', 'right'\), got 'lft'. Did you mean 'left'"):
        Pair.from_pretrained(tmp_path, dtype={"lft": "float16"})
    with pytest.raises(InputError, match=r"sub-configs of PartConfig \(it has none\), got 'left'"):
        Part.from_config(PartConfig(), dtype={"left": "float16"})
