"""`plan`, `diff` and `convert`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modelwright import LlamaConfig, LlamaForCausalLM

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2
    )
    folder = tmp_path_factory.mktemp("plan") / "llama"
    LlamaForCausalLM(config).save_pretrained(folder, max_shard_size="5KB")
    return folder


def test_plan_shows_what_a_load_does(run: Run, folder: Path) -> None:
    options = ("plan", folder, "--device-map", "auto", "--max-memory", "cpu=12kB,disk=10GiB", "--dtype", "bf16")
    found = json.loads(run(*options, "--json").stdout)
    assert {use["device"] for use in found["devices"]} == {"cpu", "disk"}
    assert all(use["tensors"] <= 12_000 for use in found["devices"] if use["device"] == "cpu")
    assert set(found["device_map"].values()) == {"cpu", "disk"}
    assert found["missing"] == found["unexpected"] == []
    assert {entry["dtype"] for entry in found["entries"]} == {"bfloat16"}
    text = run(*options).stdout
    assert "model.layers.{0..2}.self_attn.q_proj.weight" in text
    assert "resident" in text
    assert "disk" in text


def test_plan_takes_maps(run: Run, folder: Path) -> None:
    found = json.loads(run("plan", folder, "--device-map", ".=0,lm_head=disk", "--json").stdout)
    assert found["device_map"] == {"": 0, "lm_head": "disk"}
    assert {use["device"]: use["tensors"] for use in found["devices"]}["disk"] == 32 * 16 * 4
    for arguments in (("--max-memory", "cpu:5"), ("--device-map", "nowhere")):
        result = run("plan", folder, *arguments)
        assert result.exit_code == 2
        assert "expected" in result.stderr


def test_convert_and_diff(run: Run, folder: Path, tmp_path: Path) -> None:
    result = run("convert", folder, tmp_path / "half", "--dtype", "fp16", "--json")
    assert "model.safetensors" in json.loads(result.stdout)["files"]
    assert LlamaForCausalLM.from_pretrained(tmp_path / "half", dtype="auto").dtype == torch.float16
    assert run("diff", folder, folder, "--values").exit_code == 0
    result = run("diff", folder, tmp_path / "half", "--json")
    assert result.exit_code == 1
    assert len(json.loads(result.stdout)["headers"]) == 30
    run("convert", folder, tmp_path / "renamed", "--rename", r"^model\.=inner.")
    only = json.loads(run("diff", folder, tmp_path / "renamed", "--json").stdout)
    assert len(only["only_first"]) == len(only["only_second"]) == 29
    assert run("convert", folder, tmp_path / "x", "--rename", "nothing").exit_code == 2
    assert not (tmp_path / "x").exists()
