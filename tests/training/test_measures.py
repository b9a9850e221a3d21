"""Baselines, held-out bits, metrics and the picture of them."""

import json
import logging
import lzma
import math
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from modelwright.core.errors import InputError, MissingPackageError, RepoError
from modelwright.core.optional import is_matplotlib_available
from modelwright.training.baselines import measure_baselines, order0_entropy
from modelwright.training.data import TextBytes, held_out_windows, split_text
from modelwright.training.evaluate import bits_per_byte, held_out_bits
from modelwright.training.metrics import MetricsFile, peak_rss, read_metrics
from modelwright.training.plot import plot_loss


def as_bytes(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(data, dtype=np.uint8)


def test_entropy_of_known_distributions() -> None:
    assert order0_entropy(as_bytes(b"aaaa")) == 0.0
    assert order0_entropy(as_bytes(b"abab")) == pytest.approx(1.0)
    assert order0_entropy(as_bytes(bytes(range(256)))) == pytest.approx(8.0)
    assert order0_entropy(as_bytes(b"aaab")) == pytest.approx(0.75 * math.log2(4 / 3) + 0.25 * 2)


def test_baselines_are_of_the_held_out_bytes_only(text_file: Path) -> None:
    text = TextBytes([text_file])
    split = split_text(len(text), held_out=0.2, window=32)
    held_out = text_file.read_bytes()[split.train_end :]
    baselines = measure_baselines(text, split, limit=10**9)
    assert baselines.measured_bytes == len(held_out) == 1800
    assert baselines.entropy == pytest.approx(order0_entropy(as_bytes(held_out)))
    compressed = lzma.compress(held_out, preset=9 | lzma.PRESET_EXTREME)
    assert baselines.xz == 8 * len(compressed) / 1800
    assert lzma.decompress(compressed) == held_out
    assert baselines.xz_primed is not None
    assert baselines.xz_primed < baselines.xz
    fewer = measure_baselines(text, split, limit=100)
    assert fewer.measured_bytes == 100
    assert fewer.entropy == order0_entropy(as_bytes(held_out[:100]))


class NextIsSame(torch.nn.Module):
    """Gives probability p to the byte before being repeated; draws a random number, as LSH attention does."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> SimpleNamespace:
        torch.rand(3)
        assert not self.training
        logits = torch.full((*input_ids.shape, 258), math.log((1 - self.p) / 257))
        logits.scatter_(2, input_ids[:, :, None], math.log(self.p))
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return SimpleNamespace(loss=loss)


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("window", [4, 7, 50])
def test_held_out_bits_equal_the_sum_over_the_bytes(tmp_path: Path, window: int, batch: int) -> None:
    data = b"aabbbbcaab" * 12
    (tmp_path / "t").write_bytes(data)
    text = TextBytes([tmp_path / "t"])
    split = split_text(len(text), held_out=0.3, window=window)
    model = NextIsSame(0.6).train()
    before = torch.get_rng_state()
    bits = held_out_bits(
        model,
        text,
        held_out_windows(split, window=window, limit=10**6),
        byte_ids=torch.arange(256) + 2,
        batch=batch,
        device=torch.device("cpu"),
    )
    pairs = list(zip(data[split.train_end - 1 :], data[split.train_end :], strict=False))
    expected = -sum(math.log2(0.6 if a == b else 0.4 / 257) for a, b in pairs) / len(pairs)
    assert bits == pytest.approx(expected, rel=1e-5)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_bits_per_byte_of_a_uniform_guess() -> None:
    assert bits_per_byte(math.log(256)) == pytest.approx(8.0)


def test_metrics_keep_what_a_resume_keeps(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path, resume_at=None)
    for step in range(5):
        file.write({"kind": "train", "step": step})
    with file.path.open("a") as raw:
        raw.write('{"kind": "train", "st')  # torn by a kill
    assert [record["step"] for record in read_metrics(file.path)] == [0, 1, 2, 3, 4]
    resumed = MetricsFile(tmp_path, resume_at=2)
    resumed.write({"kind": "train", "step": 3})
    assert [record["step"] for record in read_metrics(file.path)] == [0, 1, 2, 3]
    assert [json.loads(line)["step"] for line in file.path.read_text().splitlines()] == [0, 1, 2, 3]
    MetricsFile(tmp_path, resume_at=None)
    assert read_metrics(file.path) == []


@pytest.mark.parametrize(
    "line", [b"\xff\xfe", b"5", b'{"a": 1}', b"\0" * 4, b"[" * 100_000, b'{"kind": "train", "step": "x"}', b"9" * 5000]
)
def test_a_damaged_log_does_not_stop_a_resume(tmp_path: Path, caplog: pytest.LogCaptureFixture, line: bytes) -> None:
    records = [b'{"kind": "train", "step": %d}' % step for step in range(3)]
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([records[0], line, records[1], line, records[2], b""]))
    with caplog.at_level(logging.WARNING, logger="modelwright"):
        MetricsFile(tmp_path, resume_at=1)
    assert [record["step"] for record in read_metrics(path)] == [0, 1]
    assert caplog.messages == [f"Metrics {path}: dropped 2 lines that are no records."]


@pytest.mark.parametrize("line", [b"\xff\xfe", b"5", b"\0" * 4, b"[" * 100_000, b"9" * 5000])
def test_every_broken_line_is_a_repo_error(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b"{}\n" + line + b"\n")
    with pytest.raises(RepoError, match="line 2: expected a JSON object, got "):
        read_metrics(tmp_path / "metrics.jsonl")
    with pytest.raises(RepoError, match="cannot be read"):
        read_metrics(tmp_path)


def test_bad_metrics_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RepoError, match="there is no such file"):
        read_metrics(tmp_path / "metrics.jsonl")
    (tmp_path / "metrics.jsonl").write_text("{}\nnot json\n{}\n")
    with pytest.raises(RepoError, match="line 2: expected a JSON object, got 'not json'"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_peak_rss_counts_bytes() -> None:
    assert 10 * 2**20 < peak_rss() < 2**40


RECORDS = [
    {"kind": "start", "step": 0, "baselines": {"entropy": 4.5, "xz": 2.0}},
    {"kind": "held_out", "step": 0, "bits_per_byte": 8.0},
    {"kind": "train", "step": 1, "bits_per_byte": 7.0},
    {"kind": "train", "step": 2, "bits_per_byte": 5.0},
    {"kind": "held_out", "step": 2, "bits_per_byte": 5.5},
]


def test_plot_draws_the_curve_the_points_and_both_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = pytest.importorskip("matplotlib.figure")
    drawn: list[Any] = []
    original = figures.Figure.savefig
    monkeypatch.setattr(
        figures.Figure, "savefig", lambda self, *args, **kw: (drawn.append(self), original(self, *args, **kw))
    )
    plot_loss(RECORDS, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in drawn[0].axes[0].lines}
    assert lines["training"] == ([1, 2], [7.0, 5.0])
    assert lines["held out"] == ([0, 2], [8.0, 5.5])
    assert lines["held out: order-0 entropy"][1] == [4.5, 4.5]
    assert lines["held out: xz -9e"][1] == [2.0, 2.0]


def test_plot_refuses_what_it_cannot_draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelwright.training import plot

    if is_matplotlib_available():
        with pytest.raises(InputError, match="at least one recorded training step"):
            plot_loss(RECORDS[:2], tmp_path / "loss.png")

    def absent(package: str, *, extra: str, why: str) -> ModuleType:
        from modelwright.core import optional

        monkeypatch.setattr(optional, "is_available", lambda name: False)
        return optional.require(package, extra=extra, why=why)

    monkeypatch.setattr(plot, "require", absent)
    with pytest.raises(
        MissingPackageError, match=r"Drawing the loss curve needs .* pip install 'modelwright\[plots\]'"
    ):
        plot_loss(RECORDS, tmp_path / "loss.png")
