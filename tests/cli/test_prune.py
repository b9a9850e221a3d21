"""`prune`: heads by name, or those that matter least."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modelwright.core.errors import InputError
from modelwright.models.gpt2.configuration_gpt2 import GPT2Config
from modelwright.models.gpt2.modeling_gpt2 import GPT2LMHeadModel
from modelwright.training.head_scores import heads_to_prune, score_heads

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 over bytes of which head 2 of layer 0 and heads 0 and 3 of layer 1 do nothing."""
    path = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=258, n_positions=64, n_embd=16, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=1)
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for layer, head in ((0, 2), (1, 0), (1, 3)):
            model.transformer.h[layer].attn.c_proj.weight[4 * head : 4 * head + 4] = 0
    model.save_pretrained(path)
    return path


def test_the_heads_that_do_nothing_go_first(run: Run, folder: Path, text_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("prune", folder, "--keep", "0.625", "--text", text_file, "--window", "32", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["pruned"] == {"0": [2], "1": [0, 3]}
    assert report["after"]["loss"] == pytest.approx(report["before"]["loss"], abs=1e-6)
    assert report["before"]["parameters"] - report["after"]["parameters"] == 3 * (3 * 4 * 17 + 4 * 16)
    assert report["after"]["bytes"] < report["before"]["bytes"]
    loaded = GPT2LMHeadModel.from_pretrained(out, strict=True)
    assert loaded.config.pruned_heads == {0: [2], 1: [0, 3]}
    assert loaded.num_parameters() == report["after"]["parameters"]


def test_heads_by_name(run: Run, folder: Path, tmp_path: Path) -> None:
    result = run("prune", folder, "--heads", "0:1,3", "--heads", "1:0", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "layer 0: heads 1, 3" in result.stdout
    assert "parameters" in result.stdout
    assert "loss" not in result.stdout
    assert GPT2LMHeadModel.from_pretrained(tmp_path / "out").config.pruned_heads == {0: [1, 3], 1: [0]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "either --heads LAYER:HEAD,HEAD or --keep SHARE, got both or neither"),
        (("--heads", "0:1", "--keep", "0.5"), "got both or neither"),
        (("--keep", "0.5"), "--keep needs --text FILE"),
        (("--heads", "01"), "--heads: expected LAYER:HEAD,HEAD such as 0:1,3, got '01'"),
        (("--heads", "0:4"), "expected heads from 0 to 3"),
        (("--heads", "0:0,1,2,3"), "at least one of 4 heads to stay in layer 0"),
        (("--heads", "0:1", "--text", "nowhere.txt"), "nowhere.txt: there is no such file"),
        (("--heads", "0:1", "--window", "1"), "--window: expected a whole number of at least 2, got 1"),
    ],
)
def test_bad_input(run: Run, folder: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run("prune", folder, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_choosing_keeps_the_best_of_each_layer() -> None:
    scores = torch.tensor([[0.1, 0.2, 0.3], [0.8, 0.9, 0.7]])
    assert heads_to_prune(scores, 0.5) == {0: [0, 1], 1: [2]}
    assert heads_to_prune(scores, 0.01) == {0: [0, 1], 1: [0, 2]}
    assert heads_to_prune(scores, 0.5, {0: [0]}) == {0: [1], 1: [2]}
    assert heads_to_prune(scores, 1.0) == {}
    with pytest.raises(InputError, match="above 0 and at most 1, got 0"):
        heads_to_prune(scores, 0)


def test_a_model_without_head_masks_is_not_scored() -> None:
    class Headless(torch.nn.Module):
        def forward(self, input_ids: Any) -> Any: ...

    with pytest.raises(InputError, match="Headless takes no head_mask"):
        score_heads(Headless(), [])
