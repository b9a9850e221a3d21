"""Checkpoints that bring their own code: saved with it, refused without trust, run by hash from a folder or the hub."""

import importlib.util
import json
import os
import pickle
import stat
import subprocess
import sys

import pytest
import torch

from modelwright import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, GPT2Config
from modelwright.core import logging
from modelwright.core.errors import ConfigError, InputError, MissingPackageError, RepoError
from modelwright.hub.custom_code import code_hash
from modelwright.models.auto.custom_modules import CACHE

CONFIG = """
from modelwright import PretrainedConfig

class WideConfig(PretrainedConfig):
    model_type = "wide"

    def __init__(self, width=3, **kwargs):
        self.width = width
        super().__init__(**kwargs)
"""
MODEL = """
import torch
from modelwright import PreTrainedModel
from .configuration_wide import WideConfig
from . import helper_wide

class WideModel(PreTrainedModel):
    config_class = WideConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(config.width, config.width)
        self.post_init()

    def forward(self, x):
        return helper_wide.double(self.layer(x))

class WideForCausalLM(WideModel):
    pass
"""
HELPER = """
def double(x):
    return 2 * x
"""
TOKENIZER = """
from modelwright import ByteTokenizer

class ShoutingTokenizer(ByteTokenizer):
    def _text_to_ids(self, text):
        return super()._text_to_ids(text.upper())
"""
X = torch.eye(3)


@pytest.fixture
def said(caplog):
    logging.forget_once()
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The author's package, on the author's path, with files that nobody may write to."""
    folder = tmp_path / "author" / "wide"
    folder.mkdir(parents=True)
    texts = {
        "configuration_wide": CONFIG,
        "modeling_wide": MODEL,
        "helper_wide": HELPER,
        "tokenization_wide": TOKENIZER,
    }
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
        (folder / f"{name}.py").chmod(0o444)
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(folder.parent)
    for name in [name for name in sys.modules if name.split(".")[0] == "wide"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    return importlib.import_module


@pytest.fixture
def saved(package, tmp_path):
    modeling = package("wide.modeling_wide")
    modeling.WideConfig.register_for_auto_class()
    modeling.WideModel.register_for_auto_class(AutoModel)
    model = modeling.WideModel(modeling.WideConfig(width=3)).eval()
    model.save_pretrained(tmp_path / "saved")
    return model, tmp_path / "saved"


def change(folder, **items):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | items))


def test_code_is_saved_beside_the_model(saved):
    model, folder = saved
    assert json.loads((folder / "config.json").read_text())["auto_map"] == {
        "AutoConfig": "configuration_wide.WideConfig",
        "AutoModel": "modeling_wide.WideModel",
    }
    assert (folder / "modeling_wide.py").read_text() == MODEL
    assert sorted(path.name for path in folder.glob("*.py")) == [
        "configuration_wide.py",
        "helper_wide.py",
        "modeling_wide.py",
    ]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes["modeling_wide.py"] == modes["config.json"] == modes["model.safetensors"]
    model.save_pretrained(folder)
    assert not hasattr(model.config, "auto_map"), "the model's own config is not changed"


def test_trusted_code_runs_and_is_named_in_the_report(saved):
    model, folder = saved
    path = list(sys.path)
    loaded = AutoModel.from_pretrained(folder, trust_remote_code=True)
    assert torch.equal(loaded(X), model(X))
    assert type(loaded) is not type(model)
    files = {each.name: each.read_bytes() for each in folder.glob("*.py")}
    assert loaded.load_report.code_sha256 == loaded.load_report.to_dict()["code_sha256"] == code_hash(files)
    assert type(loaded).__module__ == f"modelwright.models.auto.custom_modules.h{code_hash(files)}.modeling_wide"
    assert (CACHE / f"h{code_hash(files)}" / "modeling_wide.py").read_text() == MODEL
    assert sys.path == path
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert type(config) is type(loaded.config), "one unit: the model and its config share their classes"
    assert type(AutoModel.from_config(config, trust_remote_code=True)) is type(loaded)
    assert type(AutoModel.from_pretrained(folder, config=config, trust_remote_code=True)) is type(loaded)


@pytest.mark.parametrize("trust", [None, False])
def test_without_trust_nothing_runs(saved, trust):
    _, folder = saved
    (folder / "modeling_wide.py").write_text("raise SystemExit('it ran')")
    for auto in (AutoConfig, AutoModel):
        with pytest.raises(
            InputError, match=f"{auto.__name__}: .* brings its own code .* is not run. .*trust_remote_code=T"
        ):
            auto.from_pretrained(folder, trust_remote_code=trust)


def test_changed_code_is_another_module(saved):
    model, folder = saved
    first = AutoModel.from_pretrained(folder, trust_remote_code=True)
    (folder / "helper_wide.py").write_text(HELPER.replace("2 * x", "3 * x"))
    second = AutoModel.from_pretrained(folder, trust_remote_code=True)
    assert torch.equal(second(X), 1.5 * model(X))
    assert torch.equal(first(X), model(X))
    assert first.load_report.code_sha256 != second.load_report.code_sha256


def test_a_file_of_the_cache_that_was_changed_is_not_run(saved):
    model, folder = saved
    text = HELPER + f"# {os.urandom(8).hex()}\n"
    (folder / "helper_wide.py").write_text(text)
    kept = CACHE / ("h" + code_hash({each.name: each.read_bytes() for each in folder.glob("*.py")}))
    kept.mkdir(parents=True)
    (kept / "helper_wide.py").write_text("raise SystemExit('it ran')")
    assert torch.equal(AutoModel.from_pretrained(folder, trust_remote_code=True)(X), model(X))
    assert (kept / "helper_wide.py").read_text() == text


def test_a_loaded_model_is_saved_with_its_code(saved, tmp_path):
    model, folder = saved
    AutoModel.from_pretrained(folder, trust_remote_code=True).save_pretrained(tmp_path / "again")
    for name in ("modeling_wide.py", "configuration_wide.py", "helper_wide.py"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    assert torch.equal(AutoModel.from_pretrained(tmp_path / "again", trust_remote_code=True)(X), model(X))


def test_another_process_finds_the_class_by_its_name(saved):
    _, folder = saved
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True, width=5)
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).width)"
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(config), capture_output=True, timeout=120)
    assert done.stdout == b"5\n", done.stderr


def test_from_the_hub(hub, saved, tmp_path):
    model, folder = saved
    repo = hub.add("org/wide", folder)
    pinned = repo.branches["main"]
    loaded = AutoModel.from_pretrained("org/wide", trust_remote_code=True)
    assert torch.equal(loaded(X), model(X))
    config = AutoConfig.from_pretrained("org/wide", trust_remote_code=True)
    assert config.auto_map["AutoModel"] == "org/wide--modeling_wide.WideModel"
    # A config that is saved alone says where the code is; the hub then has it.
    only = GPT2Config.from_dict({"auto_map": config.auto_map})
    only.save_pretrained(tmp_path / "only")
    change(tmp_path / "only", model_type="wide", width=3)
    assert type(AutoConfig.from_pretrained(tmp_path / "only", trust_remote_code=True)) is type(config)
    changed = {**repo.head, "helper_wide.py": HELPER.replace("2 * x", "3 * x").encode()}
    repo.commit(changed)
    assert torch.equal(AutoModel.from_pretrained("org/wide", trust_remote_code=True)(X), 1.5 * model(X))
    for keywords in ({"code_revision": pinned}, {"revision": pinned}):
        assert torch.equal(AutoModel.from_pretrained("org/wide", trust_remote_code=True, **keywords)(X), model(X))
    loaded.save_pretrained(tmp_path / "copy")
    hub.requests()
    assert torch.equal(AutoModel.from_pretrained(tmp_path / "copy", trust_remote_code=True)(X), model(X))
    assert hub.requests() == [], "the copy has its code with it"


def test_pushed_with_its_code(hub, saved):
    model, _ = saved
    model.push_to_hub("org/wide", token="hf_writer")
    assert torch.equal(AutoModel.from_pretrained("org/wide", trust_remote_code=True)(X), model(X))


def test_tokenizers(hub, package, tmp_path):
    cls = package("wide.tokenization_wide").ShoutingTokenizer
    cls.register_for_auto_class()
    written = cls().save_pretrained(tmp_path / "saved")
    assert str(tmp_path / "saved" / "tokenization_wide.py") in written
    stored = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert stored["auto_map"] == {"AutoTokenizer": ["tokenization_wide.ShoutingTokenizer", None]}
    with pytest.raises(InputError, match="AutoTokenizer: .* brings its own code"):
        AutoTokenizer.from_pretrained(tmp_path / "saved")
    hub.add("org/shout", tmp_path / "saved")
    for place in (tmp_path / "saved", "org/shout"):
        loaded = AutoTokenizer.from_pretrained(place, trust_remote_code=True)
        assert loaded("abc")["input_ids"] == cls()("ABC")["input_ids"]
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "tokenization_wide.py").read_text() == TOKENIZER
    # Older checkpoints name it in config.json.
    (tmp_path / "again" / "tokenizer_config.json").write_text("{}")
    (tmp_path / "again" / "config.json").write_text(json.dumps({"model_type": "wide", "auto_map": stored["auto_map"]}))
    again = AutoTokenizer.from_pretrained(tmp_path / "again", trust_remote_code=True)
    assert again("abc")["input_ids"] == cls()("ABC")["input_ids"]


def test_what_is_wrong_with_code_is_said_before_it_runs(saved):
    _, folder = saved

    def load(name, text, auto=AutoModel):
        (folder / name).write_text(text)
        auto.from_pretrained(folder, trust_remote_code=True)

    late = "def f():\n    from transformers.models import x\n"
    with pytest.raises(
        InputError, match=r"helper_wide.py, line 2: the code imports transformers. Nothing .*`modelwright mi"
    ):
        load("helper_wide.py", late)
    with pytest.raises(InputError, match=r"helper_wide.py: expected Python 3.* code"):
        load("helper_wide.py", "def f(:\n")
    with pytest.raises(
        InputError, match=r"helper_wide.py, line 1: expected relative imports from files of the same folder"
    ):
        load("helper_wide.py", "from ..up import x\n")
    with pytest.raises(
        MissingPackageError, match=r"modeling_wide.py cannot be imported: No module named 'nowhere_at_all'"
    ):
        load("helper_wide.py", "import nowhere_at_all\n")
    (folder / "helper_wide.py").unlink()
    (folder / "helper_wide.py").symlink_to("/etc/hostname")
    with pytest.raises(RepoError, match="is a link that leaves"):
        AutoModel.from_pretrained(folder, trust_remote_code=True)
    (folder / "helper_wide.py").unlink()
    with pytest.raises(RepoError, match=r"there is no file 'helper_wide.py'"):
        AutoModel.from_pretrained(folder, trust_remote_code=True)
    (folder / "helper_wide.py").write_text(HELPER)
    with pytest.raises(
        ConfigError, match="its code has classes for AutoConfig, AutoModel, none for AutoModelForCausalLM"
    ):
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    for reference, message in (
        ("modeling_wide.Wide", "but modeling_wide.py has no 'Wide'"),
        ("../x.Wide", "expected auto_map to name 'module.Class'"),
        (3, "expected auto_map to name 'module.Class'"),
    ):
        change(folder, auto_map={"AutoModel": reference})
        with pytest.raises(ConfigError, match=message):
            AutoModel.from_pretrained(folder, trust_remote_code=True)
    change(folder, auto_map=["AutoModel"])
    with pytest.raises(ConfigError, match="expected auto_map to be an object"):
        AutoModel.from_pretrained(folder, trust_remote_code=True)


def test_registering(saved, package, tmp_path, said):
    modeling = package("wide.modeling_wide")
    with pytest.raises(
        InputError, match=r"WideModel.register_for_auto_class: auto_class: expected one of AutoConfig, .*Modl"
    ):
        modeling.WideModel.register_for_auto_class("AutoModl")
    up = tmp_path / "author" / "wide" / "up.py"
    up.write_text(
        "from modelwright import GPT2Config\nfrom .deep.x import y\n\nclass UpConfig(GPT2Config):\n    pass\n"
    )
    (up.parent / "deep").mkdir()
    (up.parent / "deep" / "x.py").write_text("y = 1\n")
    with pytest.raises(InputError, match=r"up.py, line 2: expected relative imports from files of the same folder"):
        package("wide.up").UpConfig.register_for_auto_class()
    assert package("wide.up").UpConfig._auto_class is None
    modeling.WideForCausalLM.register_for_auto_class("AutoModelForCausalLM")
    modeling.WideForCausalLM(modeling.WideConfig()).save_pretrained(tmp_path / "head")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "head", trust_remote_code=True)
    assert type(loaded).__name__ == "WideForCausalLM"

    class HereConfig(GPT2Config):
        pass

    HereConfig.register_for_auto_class()
    HereConfig().save_pretrained(tmp_path / "here")
    HereConfig.__module__ = "__main__"
    HereConfig().save_pretrained(tmp_path / "here")
    assert "auto_map" not in json.loads((tmp_path / "here" / "config.json").read_text())
    assert said() == [
        f"HereConfig is defined in {place}, so its code is not saved; move it to a file of its own and import it."
        for place in ("a function or class", "__main__")
    ]
