"""Windows of memory-mapped text: what is read, what is never read, and how it is found."""

import random
from pathlib import Path

import numpy as np
import pytest

from modelwright.core.errors import InputError, RepoError
from modelwright.training.data import (
    HeldOutWindow,
    TextBytes,
    held_out_windows,
    split_text,
    training_batch,
    window_start,
)


def write(folder: Path, *parts: bytes) -> list[Path]:
    paths = [folder / f"part-{number}.txt" for number in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(part)
    return paths


def test_reads_across_files_as_one_text(tmp_path: Path) -> None:
    parts = [b"abc", b"d", b"efghij", b"klm"]
    text, whole = TextBytes(write(tmp_path, *parts)), b"".join(parts)
    assert len(text) == len(whole)
    for start in range(len(whole)):
        for length in range(len(whole) - start + 1):
            assert text.read(start, length).tobytes() == whole[start : start + length]


def test_files_are_mapped_not_loaded(tmp_path: Path) -> None:
    text = TextBytes(write(tmp_path, b"x" * 100))
    assert all(isinstance(mapped, np.memmap) for mapped in text._maps)


def test_identity_sees_bytes_not_file_boundaries(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    two = TextBytes(write(tmp_path / "a", b"hello ", b"world")).identity()
    one = TextBytes(write(tmp_path / "b", b"hello world")).identity()
    other = TextBytes(write(tmp_path / "c", b"hello worle")).identity()
    assert one == two
    assert one["bytes"] == other["bytes"] == 11
    assert one["sha256"] != other["sha256"]


def test_held_out_bytes_are_never_in_a_training_window() -> None:
    generator = random.Random(0)
    for _ in range(300):
        total, window = generator.randrange(20, 400), generator.randrange(2, 15)
        split = split_text(total, held_out=generator.uniform(0.01, 0.3), window=window)
        assert 1 <= split.held_out < total
        starts = [window_start(generator.randrange(99), step, 3, split.train_end - window + 1) for step in range(40)]
        assert min(starts) >= 0
        assert max(starts) + window <= split.train_end


def test_training_windows_reach_every_training_byte_and_no_other(tmp_path: Path) -> None:
    # Training bytes have values below 200, held-out ones above: a leak would show in the values.
    whole = bytes(range(100)) + bytes([250]) * 11
    text = TextBytes(write(tmp_path, whole[:37], whole[37:]))
    split = split_text(len(text), held_out=0.1, window=8)
    assert split.train_end == 100
    rows = np.concatenate(
        [training_batch(text, split, window=8, seed=1, step=step, rows=range(4)) for step in range(200)]
    )
    assert set(rows.flatten().tolist()) == set(range(100))


def test_a_window_is_a_pure_function_of_seed_step_and_row() -> None:
    start = window_start(5, 1000, 3, 10_000)
    assert [window_start(5, 1000, 3, 10_000) for _ in range(3)] == [start] * 3
    assert (
        len({window_start(seed, step, row, 10**9) for seed in range(5) for step in range(5) for row in range(5)}) == 125
    )
    # The value itself is fixed: another one would break every resume.
    assert [window_start(0, 0, 0, 1000), window_start(0, 1, 0, 1000), window_start(0, 0, 1, 1000)] == [11, 342, 643]


def test_rows_do_not_depend_on_how_they_are_batched(tmp_path: Path) -> None:
    text = TextBytes(write(tmp_path, bytes(range(256))))
    split = split_text(len(text), held_out=0.1, window=16)
    together = training_batch(text, split, window=16, seed=0, step=4, rows=range(4))
    apart = [training_batch(text, split, window=16, seed=0, step=4, rows=[row])[0] for row in range(4)]
    assert np.array_equal(together, np.stack(apart))


def test_window_starts_are_even() -> None:
    starts = np.array([window_start(0, step, 0, 10) for step in range(5000)])
    counts = np.bincount(starts, minlength=10)
    assert counts.min() > 400
    assert counts.max() < 600


def test_held_out_windows_count_every_byte_once_and_have_context() -> None:
    generator = random.Random(1)
    for _ in range(300):
        total, window = generator.randrange(20, 400), generator.randrange(2, 15)
        split = split_text(total, held_out=generator.uniform(0.01, 0.4), window=window)
        limit = generator.randrange(1, 200)
        windows = held_out_windows(split, window=window, limit=limit)
        counted = [byte for w in windows for byte in range(w.first, w.end)]
        assert counted == list(range(split.train_end, min(total, split.train_end + limit)))
        assert all(w.end - w.start == window and 0 <= w.start < w.first for w in windows)


def test_first_held_out_byte_has_the_last_training_byte_as_context() -> None:
    split = split_text(100, held_out=0.1, window=6)
    windows = held_out_windows(split, window=6, limit=100)
    assert windows == [HeldOutWindow(89, 90, 95), HeldOutWindow(94, 95, 100)]


def test_too_short_text_is_refused() -> None:
    with pytest.raises(InputError, match=r"100 bytes, of which the last 10 are held out, leave 90 .* one window of 91"):
        split_text(100, held_out=0.1, window=91)
    assert split_text(100, held_out=0.1, window=90).train_end == 90


def test_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RepoError, match=r"nowhere\.txt: there is no such file"):
        TextBytes([tmp_path / "nowhere.txt"])
    with pytest.raises(RepoError, match="expected a file, found a folder"):
        TextBytes([tmp_path])
    with pytest.raises(InputError, match=r"part-1\.txt: expected some bytes, found an empty file"):
        TextBytes(write(tmp_path, b"abc", b""))
    with pytest.raises(InputError, match=r"at least one file \(--text FILE\), got none"):
        TextBytes([])


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "t").write_bytes(b"abc")
    assert TextBytes(["~/t"]).read(0, 3).tobytes() == b"abc"
