"""config.json written by either side says the same to the other."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from modelwright.config.configuration import PretrainedConfig
from modelwright.config.values import common_values
from modelwright.models.reformer.configuration_reformer import ReformerConfig

pytestmark = [
    pytest.mark.parity,
    # Upstream wants generation fields elsewhere; old files have them all the same.
    pytest.mark.filterwarnings("ignore:Some non-default generation parameters:UserWarning"),
]

# Only in one side's files, by design: who wrote it.
WRITER = {"transformers_version", "modelwright_version"}

CASES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "generation fields": {"max_length": 30, "top_k": 5, "num_beams": 4, "bad_words_ids": [[1, 2]]},
    "shared defaults given": {"tie_word_embeddings": True, "max_length": 20, "return_dict": True},
    "shared values changed": {"return_dict": False, "output_attentions": True, "problem_type": "regression"},
    "labels": {"id2label": {0: "no", 1: "yes", 2: "maybe"}, "label2id": {"no": 0, "yes": 1, "maybe": 2}},
    "number of labels": {"num_labels": 5},
    "dtype": {"dtype": "float16"},
    "old dtype": {"torch_dtype": "bfloat16"},
    "pruned heads": {"pruned_heads": {0: [1, 2], 3: [0]}},
    "unknown": {"flavour": "mint", "nested": {"b": [1, {"a": None}]}, "architectures": ["X"]},
    "tokens": {"bos_token_id": 3, "eos_token_id": [1, 2], "pad_token_id": None, "decoder_start_token_id": 0},
    "reformer": {"attn_layers": ["lsh"], "local_attn_chunk_length": 8, "num_buckets": [2, 4], "hash_seed": 1},
}


def written(folder: Path) -> dict[str, Any]:
    values = json.loads((folder / "config.json").read_text())
    return {key: value for key, value in values.items() if key not in WRITER}


def without_own(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out the two fields that only ours has, which say how to compute, not what."""
    assert values.pop("attention_mode") == "lsh"
    assert values.pop("recompute_attention") is False
    return values


def as_json(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in json.loads(json.dumps(values)).items() if key not in WRITER}


@pytest.mark.parametrize("name", CASES)
def test_both_write_the_same_file(name: str, tmp_path: Path) -> None:
    import transformers

    ReformerConfig(**CASES[name]).save_pretrained(tmp_path / "ours")
    transformers.ReformerConfig(**CASES[name]).save_pretrained(tmp_path / "theirs")
    assert without_own(written(tmp_path / "ours")) == written(tmp_path / "theirs")


@pytest.mark.parametrize("name", CASES)
def test_ours_is_read_by_upstream(name: str, tmp_path: Path) -> None:
    import transformers

    config = ReformerConfig(**CASES[name])
    config.save_pretrained(tmp_path)
    theirs = transformers.ReformerConfig.from_pretrained(tmp_path)
    for key, value in as_json(config.to_dict()).items():
        assert as_json(theirs.to_dict())[key] == value, key


@pytest.mark.parametrize("name", CASES)
def test_upstreams_is_read_by_us(name: str, tmp_path: Path) -> None:
    import transformers

    theirs = transformers.ReformerConfig(**CASES[name])
    theirs.save_pretrained(tmp_path)
    ours = ReformerConfig.from_pretrained(tmp_path)
    expected = as_json(theirs.to_dict())
    expected.pop("_name_or_path")
    assert {key: as_json({"x": getattr(ours, key)})["x"] for key in expected} == expected


def test_every_field_of_a_family_that_we_do_not_know_survives(tmp_path: Path) -> None:
    import transformers

    theirs = transformers.T5Config(d_model=8, feed_forward_proj="gated-gelu", num_layers=3, n_positions=77)
    theirs.save_pretrained(tmp_path / "a")
    PretrainedConfig.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    assert written(tmp_path / "b") == written(tmp_path / "a")
    again = transformers.T5Config.from_pretrained(tmp_path / "b").to_dict()
    assert as_json(again) == as_json(theirs.to_dict())


def test_the_shared_defaults_are_upstreams() -> None:
    import transformers

    theirs = transformers.PretrainedConfig().to_dict()
    theirs.pop("transformers_version")
    assert common_values() == theirs


def test_arguments_without_names_mean_the_same() -> None:
    import transformers

    def names(config_class: type) -> list[str]:
        return [name for name in inspect.signature(config_class).parameters if name != "kwargs"]

    theirs = names(transformers.ReformerConfig)
    assert names(ReformerConfig)[: len(theirs)] == theirs
