"""Which dtype a model is built with."""

import types
from pathlib import Path

import pytest
import torch

from modelwright.checkpoint.headers import TensorInfo
from modelwright.core.errors import InputError
from modelwright.pretrained.dtypes import resolve, wanted_dtype


def stored(*items):
    return {
        str(index): TensorInfo(str(index), dtype, (nbytes,), nbytes, Path("file"))
        for index, (dtype, nbytes) in enumerate(items)
    }


@pytest.mark.parametrize("value", [torch.bfloat16, "bfloat16", "torch.bfloat16"])
def test_all_spellings_under_both_names(value):
    assert wanted_dtype("X", value, None) == wanted_dtype("X", None, value) == torch.bfloat16
    assert wanted_dtype("X", value, torch.bfloat16) == torch.bfloat16


def test_two_different_wishes_are_an_error():
    with pytest.raises(InputError, match=r"X: expected dtype and torch_dtype .* got dtype='float16' and"):
        wanted_dtype("X", "float16", torch.float32)


@pytest.mark.parametrize("value", [torch.int64, "int8", "half-precision", 16, True])
def test_other_dtypes_are_refused(value):
    with pytest.raises(InputError, match="X: expected dtype to be a floating-point torch.dtype, its name or 'auto'"):
        wanted_dtype("X", value, None)


def test_a_dictionary_is_not_built_yet():
    with pytest.raises(NotImplementedError, match="dtype as a dictionary"):
        wanted_dtype("X", {"text_config": "float16"}, None)


def test_auto_is_the_configs_then_the_checkpoints_largest_share():
    mixed = stored((torch.int64, 900), (torch.float32, 10), (torch.bfloat16, 30), (torch.float32, 15))
    config = types.SimpleNamespace(dtype=None)
    assert resolve(None, config, mixed) == torch.float32
    assert resolve("auto", config, mixed) == torch.bfloat16
    assert resolve("auto", config, stored((torch.int64, 9))) == torch.float32
    config.dtype = "float16"
    assert resolve("auto", config, mixed) == torch.float16
    assert resolve(torch.float64, config, mixed) == torch.float64
