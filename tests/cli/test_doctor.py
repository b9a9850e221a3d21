"""`modelwright doctor`: what it finds on this machine, and on ones that lack something."""

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modelwright.core import machine

Run = Callable[..., Any]


def test_it_shows_versions_packages_and_what_they_enable(run: Run) -> None:
    result = run("doctor")
    assert result.exit_code == 0
    assert f"torch          {importlib.metadata.version('torch')}" in result.stdout
    assert "modelwright migrate" in result.stdout
    assert torch.backends.cpu.get_cpu_capability() in result.stdout


def test_a_missing_package_says_how_to_get_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    there = machine.is_available
    monkeypatch.setattr(machine, "is_available", lambda name: name not in ("keras", "tokenizers") and there(name))
    result = run("doctor")
    assert result.exit_code == 1
    assert "- tokenizers     missing: reinstall modelwright" in result.stdout
    assert "for modelwright.keras_layers and the TF* names: pip install 'modelwright[keras]'" in result.stdout


def test_json(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "models--a--b").mkdir()
    found = json.loads(run("doctor", "--json").stdout)
    assert found["hub"]["cache"] == str(tmp_path)
    assert (found["hub"]["cached_models"], found["hub"]["offline"], found["hub"]["writable"]) == (1, True, True)
    assert found["packages"]["torch"] == importlib.metadata.version("torch")
    assert found["optional"]["libcst"]["extra"] == "migrate"
    assert found["cpu"]["torch_threads"] == torch.get_num_threads()


X86 = "processor\t: 0\nmodel name\t: A Xeon\nflags\t\t: fpu sse2 avx2 avx512f avx512_vnni\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16\n"


@pytest.mark.parametrize(
    ("text", "there", "absent"),
    [(X86, {"avx2", "avx512f", "avx512_vnni"}, {"amx_int8", "avx512_bf16"}), (ARM, {"asimd", "bf16"}, {"i8mm"})],
)
def test_the_features_of_a_processor(text: str, there: set[str], absent: set[str], tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    features = machine.describe_machine(path)["cpu"]["features"]
    assert {name for name, value in features.items() if value} == there
    assert absent <= {name for name, value in features.items() if not value}


def test_a_system_that_does_not_say(tmp_path: Path) -> None:
    assert machine.describe_machine(tmp_path / "nowhere")["cpu"]["features"] is None


def test_versions() -> None:
    assert machine.version_of("no_such_package") is None
    assert machine.version_of("json") == "unknown"
    assert machine.version_of("rich") == importlib.metadata.version("rich")
