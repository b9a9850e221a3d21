"""Every model goes to the hub and comes back bit for bit, with its tags; a subclass of it takes its code along."""

import importlib
import sys

import pytest
import torch

from modelwright import AutoModel
from modelwright.core.errors import InputError

SUBCLASS = "from {home} import {name}\n\nclass Mine({name}):\n    mine = True\n"


def same(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_pushed_and_loaded_back(hub, model, tmp_path):
    model.add_model_tags(["one", "two"])
    model.push_to_hub("org/mine", token="hf_writer", max_shard_size=2000)
    assert b"tags:\n- one\n- two\n" in hub.repos["org/mine"].head["README.md"]
    loaded = type(model).from_pretrained("org/mine", cache_dir=tmp_path)
    assert loaded.load_report.missing_keys == loaded.load_report.unexpected_keys == []
    assert same(model, loaded)
    assert loaded.config.to_dict() == type(model).config_class.from_pretrained("org/mine", cache_dir=tmp_path).to_dict()


def test_a_subclass_is_registered_saved_with_its_code_and_found(public_row, tmp_path, monkeypatch):
    base = public_row.model_class()
    name = f"modeling_{base.__name__.lower()}"
    (tmp_path / f"{name}.py").write_text(SUBCLASS.format(home=base.__module__, name=base.__name__))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    mine = importlib.import_module(name).Mine
    with pytest.raises(InputError, match="auto_class: expected one of AutoConfig"):
        mine.register_for_auto_class("Auto")
    mine.register_for_auto_class("AutoModel")
    assert base._auto_class is None
    model = mine(base.config_class(**public_row.config)).eval()
    model.save_pretrained(tmp_path / "saved")
    loaded = AutoModel.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    assert loaded.mine
    assert type(loaded).__name__ == "Mine"
    assert same(model, loaded)
