import json
import re

import pytest

from modelwright.core import logging as mw_logging
from modelwright.core.errors import ConfigError, InputError, RepoError, UnknownArgumentError
from modelwright.tokenization.byte_tokenizer import ByteTokenizer


def test_saved_and_read_back(tmp_path):
    tokenizer = ByteTokenizer(add_eos=True, errors="ignore", model_max_length=77, padding_side="left", pad_token="</s>")
    paths = tokenizer.save_pretrained(tmp_path / "new" / "folder")
    names = ["tokenizer_config.json", "special_tokens_map.json"]
    assert paths == tuple(str(tmp_path / "new" / "folder" / name) for name in names)
    stored = json.loads((tmp_path / "new" / "folder" / names[0]).read_text())
    assert stored["tokenizer_class"] == "ByteTokenizer"
    assert json.loads((tmp_path / "new" / "folder" / names[1]).read_text()) == {
        "eos_token": "</s>",
        "pad_token": "</s>",
    }
    again = ByteTokenizer.from_pretrained(tmp_path / "new", subfolder="folder")
    for name in ("add_eos", "errors", "model_max_length", "padding_side", "pad_token", "special_tokens_map"):
        assert getattr(again, name) == getattr(tokenizer, name)
    assert again.name_or_path == str(tmp_path / "new")


def test_keywords_override_the_files(tmp_path):
    ByteTokenizer().save_pretrained(tmp_path)
    assert ByteTokenizer.from_pretrained(tmp_path, add_eos=True).encode("A") == [67, 1]
    with pytest.raises(UnknownArgumentError, match="unknown keyword 'add_eo'. Did you mean 'add_eos'"):
        ByteTokenizer.from_pretrained(tmp_path, add_eo=True)


def test_options_of_bert_are_saved_and_said_to_have_no_effect(tmp_path, caplog):
    mw_logging.forget_once()
    ByteTokenizer(do_lower_case=True, strip_accents=False).save_pretrained(tmp_path)
    assert "ByteTokenizer: do_lower_case, strip_accents has no effect on this tokenizer" in caplog.text
    stored = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (stored["do_lower_case"], stored["strip_accents"]) == (True, False)
    caplog.clear()
    mw_logging.forget_once()
    ByteTokenizer.from_pretrained(tmp_path)
    assert not caplog.text  # the file's own options are none of the caller's
    again = ByteTokenizer.from_pretrained(tmp_path, do_lower_case=False)
    assert "do_lower_case has no effect" in caplog.text
    assert again.encode("A") == ByteTokenizer().encode("A")
    again.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (stored["do_lower_case"], stored["strip_accents"]) == (False, False)


def test_unknown_keys_of_a_file_are_kept(tmp_path):
    config = {
        "processor_class": "X",
        "chat_template": "x",
        "eos_token": {"content": "</s>", "lstrip": True},
        "model_max_length": int(1e30),
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = ByteTokenizer.from_pretrained(tmp_path)
    assert tokenizer.eos_token == "</s>"
    assert tokenizer.model_max_length == int(1e30)
    tokenizer.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "chat_template.jinja").read_text() == "x"
    assert ByteTokenizer.from_pretrained(tmp_path / "again").chat_template == "x"
    assert json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())["processor_class"] == "X"


def test_special_tokens_map_gives_what_the_config_lacks(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "\n"}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": "</s>", "bos_token": "</s>"}))
    tokenizer = ByteTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.eos_token, tokenizer.bos_token) == ("\n", "</s>")


def test_another_class_in_the_file_is_said(tmp_path, caplog):
    mw_logging.forget_once()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizerFast"}))
    ByteTokenizer.from_pretrained(tmp_path)
    assert "names the class BertTokenizerFast, but ByteTokenizer reads it" in caplog.text


def test_files_that_are_missing_or_damaged(tmp_path):
    with pytest.raises(RepoError, match=r"expected tokenizer_config.json.* A new one needs no file: ByteTokenizer\(\)"):
        ByteTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ConfigError, match="tokenizer_config.json"):
        ByteTokenizer.from_pretrained(tmp_path)
    with pytest.raises(RepoError, match="expected a folder"):
        ByteTokenizer().save_pretrained(tmp_path / "tokenizer_config.json")


def test_filename_prefix(tmp_path):
    ByteTokenizer().save_pretrained(tmp_path, filename_prefix="mine")
    assert (tmp_path / "mine-tokenizer_config.json").is_file()
    with pytest.raises(InputError, match="filename_prefix without a folder"):
        ByteTokenizer().save_pretrained(tmp_path, filename_prefix="../x")


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    ByteTokenizer(model_max_length=7).save_pretrained("~/a")
    assert (tmp_path / "a" / "tokenizer_config.json").is_file()
    assert ByteTokenizer.from_pretrained("~/a").model_max_length == 7


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_max_length": "q"}, "expected model_max_length to be a number of tokens, got 'q'"),
        ({"model_max_length": True}, "expected model_max_length to be a number of tokens, got True"),
        ({"model_max_length": float("nan")}, "expected model_max_length to be a number of tokens, got nan"),
        ({"tokenizer_class": 5}, "expected tokenizer_class to be the name of a class, got 5"),
        ({"padding_side": []}, "expected padding_side to be 'left' or 'right'"),
        ({"model_input_names": 3}, "expected model_input_names to be a list of names, got 3"),
    ],
)
def test_values_of_a_wrong_type_name_the_file(tmp_path, values, message):
    from modelwright.models.auto.tokenization_auto import AutoTokenizer

    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({"tokenizer_class": "ByteTokenizer", **values}))
    for reader in (ByteTokenizer, AutoTokenizer):
        with pytest.raises(ConfigError, match=re.escape(f"{path}: {message}")):
            reader.from_pretrained(tmp_path)
