"""Bad input is one sentence on stderr, exit code 2, nothing on stdout and no traceback."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def refused(result: Any, message: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("modelwright: ")
    assert message in lines[0], lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("frain",), "No such command 'frain'"),
        (("train", "--out", "x", "--widnow", "3"), "No such option: --widnow"),
        (("train",), "Missing option '--out'"),
        (("generate", "x"), "Missing option '--prompt'"),
        (("verify",), "Missing argument 'CKPT'"),
        (("train", "--out", "x", "--steps", "many"), "Invalid value for '--steps'"),
        (("train", "--out", "x", "--steps", "0"), "(--steps): expected a whole number of at least 1, got 0"),
        (("train", "--out", "x", "--steps", "5", "--minutes", "1"), "exactly one of steps (--steps) and minutes"),
        (("train", "--out", "x"), "expected at least one file (--text FILE), got none"),
        (("train", "--out", "x", "--resume"), "--resume: x holds no checkpoint to go on from; start a training"),
        (("train", "--out", "x", "--text", "nowhere.txt"), "nowhere.txt: there is no such file"),
        (("train", "--out", "x", "--layers", "global"), "--layers: expected a list such as local,lsh,local,lsh"),
        (("generate", "nowhere", "--prompt", "a"), "nowhere"),
        (("inspect", "nowhere"), "is no folder on this machine"),
        (("verify", "nowhere"), "nowhere"),
    ],
)
def test_wrong_command_lines(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(run(*arguments), message)
    assert list(tmp_path.iterdir()) == []


def test_empty_and_short_texts(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    refused(run("train", "--text", tmp_path / "empty.txt", "--out", tmp_path / "m"), "found an empty file")
    (tmp_path / "short.txt").write_text("a few words")
    refused(run("train", "--text", tmp_path / "short.txt", "--out", tmp_path / "m"), "fewer than one window of 4,096")


def test_window_longer_than_the_positions(run: Run, trained: dict[str, Any], text_file: Path, tmp_path: Path) -> None:
    config = Path(trained["folder"]) / "config.json"
    result = run("train", "--text", text_file, "--out", tmp_path / "m", "--config", config, "--window", "128")
    refused(result, "at most the model's 64 positions (max_position_embeddings), got --window 128")


def test_another_architecture(run: Run, trained: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(trained["folder"], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "sparrow"}))
    refused(run("generate", folder, "--prompt", "a"), "sparrow")


def test_a_truncated_shard(run: Run, trained: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(trained["folder"], folder)
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-10])
    refused(run("generate", folder, "--prompt", "a"), shard.name)
    refused(run("inspect", folder), shard.name)


def test_training_over_a_training(run: Run, trained: dict[str, Any], text_file: Path, small: tuple[str, ...]) -> None:
    result = run("train", "--text", text_file, "--out", trained["folder"], *small)
    refused(result, "already holds a training, saved at step 6: go on with it (--resume)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--prompt", ""), "--prompt: expected some text to continue, got an empty one"),
        (("--prompt", "a", "--max-new-tokens", "0"), "--max-new-tokens: expected a whole number of at least 1"),
        (
            ("--prompt", "a", "--max-new-tokens", "64"),
            "expected at most 63, the model's 64 positions less the 1 tokens",
        ),
        (("--prompt", "a", "--temperature", "-1"), "--temperature: expected a number of at least 0, got -1.0"),
        (("--prompt", "a", "--temperature", "nan"), "--temperature: expected a number of at least 0, got nan"),
        (
            ("--prompt", "a", "--temperature", "1e-40"),
            "expected at least 0.001, or 0 for the likeliest token each time",
        ),
        (("--prompt", "a", "--top-k", "-1"), "--top-k: expected a whole number of at least 0, got -1"),
        (("--prompt", "a", "--top-p", "0"), "--top-p: expected a number above 0 and up to 1, got 0.0"),
        (("--prompt", "a", "--seed", "-1"), "--seed: expected a whole number of at least 0, got -1"),
    ],
)
def test_bad_generation(run: Run, trained: dict[str, Any], options: tuple[str, ...], message: str) -> None:
    refused(run("generate", trained["folder"], *options), message)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"hidden_size": "many"}, "hidden_size: expected a whole number of at least 1, got 'many'"),
        ({"attn_layers": 5}, "the model cannot be built from this configuration: "),
        ({"vocab_size": -3}, "vocab_size: expected a whole number of at least 1, got -3"),
        ({"dtype": "float99"}, "dtype: expected a name such as 'float32'"),
    ],
)
def test_values_that_make_no_model(
    run: Run,
    trained: dict[str, Any],
    text_file: Path,
    tmp_path: Path,
    small: tuple[str, ...],
    values: dict[str, Any],
    said: str,
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(trained["folder"], folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    refused(run("train", "--text", text_file, "--out", tmp_path / "n", "--config", path, *small[:12]), said)
    assert not (tmp_path / "n").exists()
    refused(run("generate", folder, "--prompt", "a"), said)


def test_a_config_that_is_missing(run: Run, text_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "missing.json"
    result = run("train", "--text", text_file, "--out", tmp_path / "m", "--config", path)
    refused(result, f"{path}: expected a JSON file (--config), but there is no such file")


def test_texts_and_folders_that_cannot_be(run: Run, text_file: Path, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    long = tmp_path / ("x" * 300)
    for path in (loop, long, text_file / "x"):
        refused(run("train", "--text", path, "--out", tmp_path / "m"), f"{path}: cannot be read")
    for resume in ((), ("--resume",)):
        for path in (text_file / "x", long, loop):
            refused(run("train", "--text", text_file, "--out", path, *resume), "folder for the training (--out)")
    assert list(tmp_path.iterdir()) == [loop]


def test_a_checkpoint_that_lacks_weights(run: Run, trained: dict[str, Any], tmp_path: Path) -> None:
    from modelwright.models.reformer.modeling_reformer import ReformerModelWithLMHead

    model = ReformerModelWithLMHead.from_pretrained(trained["folder"])
    weights = {name: value for name, value in model.state_dict().items() if "layers.1." not in name}
    model.save_pretrained(tmp_path / "m", state_dict=weights)
    shutil.copy(Path(trained["folder"]) / "tokenizer_config.json", tmp_path / "m")
    result = run("generate", tmp_path / "m", "--prompt", "a")
    assert result.exit_code == 2
    assert result.stdout == ""
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"modelwright: {tmp_path / 'm'}: expected all weights of the model, ")
    assert "reformer.encoder.layers.1." in last


def test_training_into_a_models_folder(
    run: Run, trained: dict[str, Any], text_file: Path, tmp_path: Path, small: tuple[str, ...]
) -> None:
    shutil.copytree(trained["folder"], tmp_path / "m", ignore=shutil.ignore_patterns("checkpoints"))
    result = run("train", "--text", text_file, "--out", tmp_path / "m", *small)
    refused(result, "already holds a model (config.json, model.safetensors.index.json)")
