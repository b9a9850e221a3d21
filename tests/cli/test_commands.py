"""`generate`, `inspect`, `verify`, the help, and the command as a process."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def test_python_m_is_the_command() -> None:
    command = [sys.executable, "-m", "modelwright", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("0.")


def test_generate_streams_what_json_reports(run: Run, trained: dict[str, Any]) -> None:
    options = ("generate", trained["folder"], "--prompt", "local ", "--max-new-tokens", "12", "--seed", "3")
    streamed = run(*options)
    assert streamed.exit_code == 0, streamed.output
    printed = json.loads(run(*options, "--json").stdout)
    assert printed["prompt"] == "local "
    assert printed["seed"] == 3
    assert printed["new_tokens"] == 12
    assert streamed.stdout.rstrip("\n") == ("local " + printed["continuation"]).rstrip("\n")
    assert json.loads(run(*options[:-1], "4", "--json").stdout)["continuation"] != printed["continuation"]


def test_generate_greedily_needs_no_seed(run: Run, trained: dict[str, Any]) -> None:
    options = (
        "generate",
        trained["folder"],
        "--prompt",
        "hash",
        "--max-new-tokens",
        "8",
        "--temperature",
        "0",
        "--json",
    )
    first, second = (json.loads(run(*options, "--seed", seed).stdout) for seed in ("1", "2"))
    assert first["continuation"] == second["continuation"]
    unseeded = [json.loads(run(*options).stdout)["seed"] for _ in range(2)]
    assert unseeded[0] != unseeded[1]


def test_inspect_reads_headers_and_merges_layers(run: Run, trained: dict[str, Any]) -> None:
    found = json.loads(run("inspect", trained["folder"], "--json").stdout)
    assert found["model_type"] == "reformer"
    assert found["architectures"] == ["ReformerModelWithLMHead"]
    from modelwright.models.reformer.modeling_reformer import ReformerModelWithLMHead

    model = ReformerModelWithLMHead.from_pretrained(trained["folder"])
    assert found["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert found["bytes"] == 4 * found["parameters"]
    assert found["bytes_by_dtype"] == {"float32": found["bytes"]}
    names = [key["name"] for key in found["keys"]]
    assert "reformer.encoder.layers.{0..1}.attention.layer_norm.weight" in names
    assert len(names) < found["tensors"]
    assert len([name for name in found["files"] if name.startswith("model-")]) > 1
    text = run("inspect", trained["folder"]).stdout
    assert f"{found['parameters']:,} parameters" in text
    assert "reformer.encoder.layers.{0..1}.attention.layer_norm.weight" in text


def test_verify_tells_sound_from_damaged(run: Run, trained: dict[str, Any], tmp_path: Path) -> None:
    sound = run("verify", trained["folder"])
    assert sound.exit_code == 0, sound.output
    assert json.loads(run("verify", trained["folder"], "--json").stdout)["ok"] is True
    folder = tmp_path / "m"
    shutil.copytree(trained["folder"], folder)
    shard = sorted(folder.glob("model-*.safetensors"))[0]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    damaged = run("verify", folder)
    assert damaged.exit_code == 1
    assert shard.name in damaged.stdout
    report = run("verify", folder, "--json")
    assert report.exit_code == 1
    assert json.loads(report.stdout)["ok"] is False
    shard.write_bytes(data[:-5])
    assert run("verify", folder).exit_code == 1
    shard.unlink()
    missing = run("verify", folder)
    assert missing.exit_code == 1
    assert shard.name in missing.stdout


def test_a_checkpoint_may_be_a_hub_repository(run: Run, trained: dict[str, Any], hub: Any) -> None:
    hub.add("org/small", {path.name: path.read_bytes() for path in Path(trained["folder"]).iterdir() if path.is_file()})
    options = ("--prompt", "a", "--max-new-tokens", "3", "--temperature", "0")
    assert run("generate", "org/small", *options).stdout == run("generate", trained["folder"], *options).stdout
    found = json.loads(run("inspect", "org/small", "--json").stdout)
    assert (found["checkpoint"], found["model_type"]) == ("org/small", "reformer")
    absent = run("generate", "org/absent", *options)
    assert absent.exit_code == 2
    assert "has no model repository" in absent.output


def test_every_training_checkpoint_is_a_model_too(run: Run, trained: dict[str, Any]) -> None:
    folder = Path(trained["folder"]) / "checkpoints" / "step-00000003"
    assert run("verify", folder).exit_code == 0
    assert run("generate", folder, "--prompt", "a", "--max-new-tokens", "3").exit_code == 0


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ((), ("train", "generate", "inspect", "verify")),
        (("train",), ("--text", "--out", "--steps", "--minutes", "--resume", "Default: 4096.", "local,lsh,local,lsh")),
        (("generate",), ("CKPT", "--prompt", "--temperature", "--top-k", "--top-p", "--seed", "--json")),
        (("inspect",), ("CKPT", "--json")),
        (("verify",), ("CKPT", "--json", "Exit code 0: sound, 1: not sound")),
    ],
)
def test_help(run: Run, command: tuple[str, ...], expected: tuple[str, ...]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    for word in expected:
        assert word in result.stdout, word
    if not command:
        assert run().stdout == result.stdout


def test_version(run: Run) -> None:
    from modelwright.core.version import __version__

    assert run("--version").stdout == __version__ + "\n"


def python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_help_and_bad_options_do_not_load_torch() -> None:
    for arguments in (["train", "--help"], ["train", "--out", "x", "--steps", "0"], ["generate", "x", "--prompt", ""]):
        code = f"""
import sys
sys.argv = ["modelwright", *{arguments!r}]
from modelwright.cli.main import main
try:
    main()
finally:
    assert not {{"torch", "numpy", "accelerate", "matplotlib"}} & set(sys.modules), "loaded"
"""
        result = python(code)
        assert "loaded" not in result.stderr, result.stderr
        assert result.returncode == (0 if "--help" in arguments else 2), result.stderr


def test_the_command_as_a_process(trained: dict[str, Any]) -> None:
    code = "import sys; from modelwright.cli.main import main; sys.argv = ['modelwright', {}]; main()"
    sound = python(code.format(f"'verify', {trained['folder']!r}, '--json'"))
    assert sound.returncode == 0, sound.stderr
    assert json.loads(sound.stdout)["ok"] is True
    wrong = python(code.format(f"'generate', {trained['folder']!r}, '--prompt', ''"))
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert wrong.stderr == "modelwright: --prompt: expected some text to continue, got an empty one.\n"


def test_a_terminal_without_utf8_is_written_to(trained: dict[str, Any]) -> None:
    arguments = ["modelwright", "generate", trained["folder"], "--prompt", "caf\u00e9", "--max-new-tokens", "3"]
    code = f"import sys; from modelwright.cli.main import main; sys.argv = {arguments!a}; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"caf?")
