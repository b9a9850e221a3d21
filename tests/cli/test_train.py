"""`modelwright train`: what it writes and prints, how it resumes, what it refuses."""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modelwright.cli.build_model import ReformerSizes, parse_layers, reformer_config
from modelwright.cli.presets import PRESETS, with_preset
from modelwright.core.errors import InputError
from modelwright.models.auto.configuration_auto import AutoConfig
from modelwright.models.auto.modeling_auto import AutoModelForCausalLM
from modelwright.training.settings import TrainingSettings

Run = Callable[..., Any]


def test_writes_a_model_metrics_and_checkpoints(trained: dict[str, Any]) -> None:
    folder = Path(trained["folder"])
    assert trained["steps"] == 6
    assert trained["baselines"]["xz"] > 0
    assert 0 < trained["baselines"]["entropy"] < 8
    assert trained["baselines"]["measured_bytes"] == 250
    for name in ("config.json", "tokenizer_config.json", "metrics.jsonl", "model.safetensors.index.json"):
        assert (folder / name).is_file(), name
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-00000003", "step-00000006"]
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(r["kind"], r["step"]) for r in records] == [
        *(("start", 0), ("held_out", 0)),
        *(("train", 1), ("train", 2), ("train", 3), ("held_out", 3)),
        *(("train", 4), ("train", 5), ("train", 6), ("held_out", 6)),
    ]
    assert records[-1]["bits_per_byte"] == trained["held_out_bits"] < records[1]["bits_per_byte"]
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "reformer"
    assert config["attn_layers"] == ["local", "lsh"]
    assert config["hidden_size"] == 16
    assert config["num_attention_heads"] == 2
    assert config["max_position_embeddings"] == 64


def test_draws_the_curve_where_matplotlib_is(trained: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib")
    assert (Path(trained["folder"]) / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_prints_a_table_and_the_progress(run: Run, text_file: Path, tmp_path: Path, small: tuple[str, ...]) -> None:
    result = run("train", "--text", text_file, "--out", tmp_path / "m", *small)
    assert result.exit_code == 0, result.output
    for expected in ("bits per byte on the 250 held-out bytes", "this model, 6 steps", "order-0 entropy", "xz -9e"):
        assert expected in result.stdout
    assert "tokens/s, peak memory" in result.stdout
    assert "held out" in result.stderr
    assert "bits/byte" in result.stderr


def test_same_seed_same_model_and_another_seed_another(
    run: Run, trained: dict[str, Any], text_file: Path, tmp_path: Path, small: tuple[str, ...]
) -> None:
    bits = {}
    for seed in (0, 1):
        result = run("train", "--text", text_file, "--out", tmp_path / str(seed), *small, "--seed", str(seed), "--json")
        bits[seed] = json.loads(result.stdout)["held_out_bits"]
    assert bits[0] == trained["held_out_bits"]
    assert bits[1] != bits[0]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from modelwright.models.reformer.modeling_reformer import ReformerModelWithLMHead

    return ReformerModelWithLMHead.from_pretrained(folder).state_dict()


def test_resume_continues_to_the_same_weights(run: Run, trained: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(trained["folder"], folder)
    shutil.rmtree(folder / "checkpoints" / "step-00000006")
    for path in [*folder.glob("model*"), folder / "config.json"]:
        path.unlink()
    result = run("train", "--out", folder, "--resume", "--json")  # text, settings and sizes are as saved
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["held_out_bits"] == trained["held_out_bits"]
    before, after = weights(Path(trained["folder"])), weights(folder)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--lr", "0.5"), "lr was 0.01, now 0.5"),
        (("--hidden", "32"), "hidden_size was 16, now 32"),
        (("--layers", "lsh"), "attn_layers was ['local', 'lsh'], now ['lsh']"),
    ],
)
def test_resume_refuses_other_options(
    run: Run, trained: dict[str, Any], options: tuple[str, ...], message: str
) -> None:
    result = run("train", "--out", trained["folder"], "--resume", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    same = run("train", "--out", trained["folder"], "--resume", "--hidden", "16", "--layers", "local,lsh", "--json")
    assert same.exit_code == 0, same.output


def test_a_config_file_describes_the_model(
    run: Run, trained: dict[str, Any], text_file: Path, tmp_path: Path, small: tuple[str, ...]
) -> None:
    config = json.loads((Path(trained["folder"]) / "config.json").read_text())
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**config, "hidden_size": 24, "axial_pos_embds_dim": [8, 16], "num_buckets": None}))
    out = tmp_path / "m"
    result = run("train", "--text", text_file, "--out", out, "--config", path, *small[:12], "--json")
    assert result.exit_code == 0, result.output
    assert json.loads((out / "config.json").read_text())["hidden_size"] == 24
    path.write_text("{}")
    result = run("train", "--text", text_file, "--out", tmp_path / "n", "--config", path)
    assert result.exit_code == 2
    assert "expected a model_type" in result.stderr
    result = run("train", "--text", text_file, "--out", tmp_path / "n", "--config", path, "--hidden", "16")
    assert result.exit_code == 2
    assert "expected it alone, got it with --hidden" in result.stderr


@pytest.mark.parametrize("window", [64, 96, 128, 4096, 67])
def test_positions_fit_the_window(window: int) -> None:
    config = reformer_config(ReformerSizes(chunk=1, local_chunk=1), window=window)
    assert config["max_position_embeddings"] == window
    assert config["axial_pos_embds"] == (window != 67)
    assert config["axial_pos_shape"][0] * config["axial_pos_shape"][1] == window
    assert sum(config["axial_pos_embds_dim"]) == config["hidden_size"]


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="--hidden: expected a multiple of the 3 heads"):
        ReformerSizes(hidden=16, heads=3)
    with pytest.raises(InputError, match="--num-hashes: expected a whole number of at least 1, got 0"):
        ReformerSizes(num_hashes=0)
    with pytest.raises(InputError, match="--dropout: expected a number from 0 to below 1"):
        ReformerSizes(dropout=1.0)
    with pytest.raises(
        InputError, match=r"--window: expected a multiple of the chunk of 64 tokens \(--chunk\), got 104"
    ):
        reformer_config(ReformerSizes(), window=104)
    with pytest.raises(InputError, match=r"multiple of the chunk of 7 tokens \(--local-chunk\), got 64"):
        reformer_config(ReformerSizes(local_chunk=7), window=64)
    assert reformer_config(ReformerSizes(layers=("lsh",), local_chunk=7), window=64)["attn_layers"] == ["lsh"]
    with pytest.raises(InputError, match="--layers: expected a list such as local,lsh,local,lsh, got 'global'"):
        parse_layers("local, global")
    assert parse_layers("local, lsh") == ("local", "lsh")


def test_every_setting_and_size_is_an_option(run: Run) -> None:
    text = run("train", "--help").stdout
    for field in (*dataclasses.fields(TrainingSettings), *dataclasses.fields(ReformerSizes)):
        assert f"--{field.name.replace('_', '-')} " in text, field.name


def test_an_interrupted_training_says_how_to_go_on(
    run: Run, trained: dict[str, Any], text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("modelwright.cli.train.run_training", stopped)
    result = run("train", "--text", text_file, "--out", tmp_path / "new")
    assert result.exit_code == 130
    assert "interrupted before the first checkpoint; nothing can be resumed" in result.stderr
    result = run("train", "--text", text_file, "--out", trained["folder"])
    assert result.exit_code == 130
    assert f"of step 6: go on with modelwright train --resume --out {trained['folder']}" in result.stderr


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_model_for_its_window(name: str) -> None:
    preset = with_preset({"preset": name})
    window = preset["window"]
    assert name == f"reformer-{window // 1024}k"
    assert {*preset} <= {field.name for kind in (TrainingSettings, ReformerSizes) for field in dataclasses.fields(kind)}
    sizes = {key: value for key, value in preset.items() if key in {f.name for f in dataclasses.fields(ReformerSizes)}}
    values = reformer_config(ReformerSizes(**{**sizes, "layers": parse_layers(sizes["layers"])}), window=window)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values))
    assert model.get_position_embeddings().num_positions == window
    assert window % model.config.least_common_chunk_length() == 0


def test_the_longest_preset_trains_with_options_beside_it(run: Run, tmp_path: Path) -> None:
    text = tmp_path / "long.txt"
    text.write_text("all work and no play makes a long document. " * 1700)
    out, small = tmp_path / "m", ("--hidden", "8", "--heads", "1", "--layers", "lsh", "--num-hashes", "1")
    options = ("--steps", "2", "--eval-bytes", "100", *small)
    result = run("train", "--text", text, "--out", out, "--preset", "reformer-64k", *options, "--json")
    assert result.exit_code == 0, result.output
    config = json.loads((out / "config.json").read_text())
    assert config["max_position_embeddings"] == 65_536
    assert (config["attn_layers"], config["hidden_size"], config["num_hashes"]) == (["lsh"], 8, 1)
    assert math.prod(config["num_buckets"]) == 2048
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len([record for record in records if record["kind"] == "train"]) == 2


def test_presets_that_do_not_fit(run: Run, text_file: Path, tmp_path: Path) -> None:
    for options, message in (
        (("--preset", "reformer-64"), "--preset: expected one of reformer-16k, reformer-4k, reformer-64k, got"),
        (("--preset", "reformer-4k", "--config", "x"), "expected it alone, got it with --preset"),
        (("--preset", "reformer-4k", "--task", "summarize"), "--preset has no meaning with --task summarize"),
        (("--preset", "reformer-4k", "--window", "104"), "expected a multiple of the chunk of 64 tokens"),
    ):
        text = () if "summarize" in options else ("--text", text_file)
        result = run("train", *text, "--out", tmp_path / "m", *options)
        assert result.exit_code == 2
        assert message in result.stderr
