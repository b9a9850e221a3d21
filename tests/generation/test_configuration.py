import json

import pytest

from modelwright.config.configuration import PretrainedConfig
from modelwright.core.errors import ConfigError, RepoError, UnknownArgumentError
from modelwright.generation.configuration import GenerationConfig
from modelwright.generation.fields import ACTIVE, DEFAULTS, IDLE, NOT_BUILT, OURS


def test_file_holds_what_differs_and_reads_back(tmp_path):
    config = GenerationConfig(max_new_tokens=7, do_sample=True, top_p=0.5, eos_token_id=[1, 2], my_key={"a": 1})
    config.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "generation_config.json").read_text())
    del stored["modelwright_version"]
    assert stored == {"max_new_tokens": 7, "do_sample": True, "top_p": 0.5, "eos_token_id": [1, 2], "my_key": {"a": 1}}
    again = GenerationConfig.from_pretrained(tmp_path)
    assert again == config
    assert again.my_key == {"a": 1}
    assert again.top_k == 50


def test_overrides_and_unused_keywords_of_from_pretrained(tmp_path):
    GenerationConfig(max_new_tokens=7, my_key=1).save_pretrained(tmp_path)
    config, unused = GenerationConfig.from_pretrained(
        tmp_path, max_new_tokens=3, my_key=2, other=4, return_unused_kwargs=True
    )
    assert (config.max_new_tokens, config.my_key, unused) == (3, 2, {"other": 4})
    with pytest.raises(UnknownArgumentError, match="no field 'max_new_token' to override. Did you mean 'max_new_tok"):
        GenerationConfig.from_pretrained(tmp_path, max_new_token=3)


def test_errors_of_files_name_the_file(tmp_path):
    with pytest.raises(RepoError, match="generation_config.json"):
        GenerationConfig.from_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"max_new_tokens": -4}')
    with pytest.raises(ConfigError, match=r"generation_config.json: .*expected max_new_tokens .* got -4"):
        GenerationConfig.from_pretrained(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RepoError, match="expected a folder"):
        GenerationConfig().save_pretrained(tmp_path / "file")


def test_update_sets_fields_and_returns_the_rest():
    config = GenerationConfig()
    assert config.update(max_length=9, temperatur=1.0) == {"temperatur": 1.0}
    assert config.max_length == 9
    with pytest.raises(ConfigError, match="expected max_new_tokens to be a whole number, 1 or more, got 0"):
        config.update(max_length=11, max_new_tokens=0)
    assert config.max_length == 9  # nothing of a refused update is kept


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens to be a whole number, 1 or more, got 0"),
        ({"max_length": 2.5}, "max_length to be a whole number, 1 or more, got 2.5"),
        ({"min_new_tokens": -1}, "min_new_tokens .* 0 or more, got -1"),
        ({"do_sample": "yes"}, "do_sample to be True or False, got 'yes'"),
        ({"use_cache": 1}, "use_cache to be True, False or None, got 1"),
        (
            {"do_sample": True, "temperature": 0.0},
            "temperature to be a number above 0, got 0.0. For .* do_sample=False",
        ),
        ({"do_sample": True, "top_p": 1.5}, "top_p to be a number from 0 to 1, got 1.5"),
        ({"do_sample": True, "top_k": -1}, "top_k to be a whole number, or 0 for no limit, got -1"),
        ({"do_sample": True, "min_p": -0.1}, "min_p to be a number from 0 to 1, got -0.1"),
        ({"repetition_penalty": 0}, "repetition_penalty to be a number above 0, got 0"),
        ({"no_repeat_ngram_size": -2}, "no_repeat_ngram_size .* got -2"),
        ({"eos_token_id": "</s>"}, "eos_token_id to be a token id or a list of them, got '</s>'"),
        ({"stop_strings": ["a", ""]}, "stop_strings .* none of them empty"),
        ({"num_return_sequences": 2}, "set do_sample=True"),
        ({"streamer": None}, "'streamer' is an argument of generate"),
    ],
)
def test_values_that_cannot_work(kwargs, match):
    with pytest.raises(ConfigError, match=match):
        GenerationConfig(**kwargs)


def test_sampling_fields_of_a_greedy_config_are_not_checked():
    assert GenerationConfig(temperature=0.0).temperature == 0.0


def test_from_model_config_takes_ids_and_old_fields_but_not_a_cache_that_is_only_possible():
    config = GenerationConfig.from_model_config(
        PretrainedConfig(eos_token_id=3, pad_token_id=0, max_length=50, use_cache=True, output_attentions=True, width=4)
    )
    assert config.to_diff_dict() == {"eos_token_id": 3, "pad_token_id": 0, "max_length": 50, "_from_model_config": True}
    assert GenerationConfig.from_model_config(PretrainedConfig(use_cache=False)).use_cache is False


def test_from_model_config_looks_into_a_decoder():
    config = GenerationConfig.from_model_config(
        PretrainedConfig(decoder={"eos_token_id": 5, "bos_token_id": 6}, bos_token_id=1)
    )
    assert (config.eos_token_id, config.bos_token_id) == (5, 1)


def test_not_built_settings_are_kept_and_reported():
    assert GenerationConfig(guidance_scale=0.3, token_healing=True).not_built() == {
        "guidance_scale": 0.3,
        "token_healing": True,
    }
    assert GenerationConfig().not_built() == {}


def test_every_field_is_in_one_group():
    assert len(DEFAULTS) == len(ACTIVE) + len(OURS) + len(NOT_BUILT) + len(IDLE)


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    GenerationConfig(max_new_tokens=7).save_pretrained("~/a")
    assert (tmp_path / "a" / "generation_config.json").is_file()
    assert GenerationConfig.from_pretrained("~/a").max_new_tokens == 7
