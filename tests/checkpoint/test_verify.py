"""Verification finds every fault, names it, and changes nothing."""

import hashlib
import json
import os

import pytest
import torch
from safetensors.torch import save_file

from modelwright.checkpoint.save import save_checkpoint
from modelwright.checkpoint.verify import verify
from modelwright.core.errors import RepoError

WEIGHTS = {f"layers.{i}.weight": torch.arange(8.0) + i for i in range(4)}
SHARD = "model-00002-of-00004.safetensors"


@pytest.fixture
def folder(tmp_path):
    save_checkpoint(WEIGHTS, tmp_path, max_shard_size=40, extra_files={"config.json": "{}\n"})
    return tmp_path


def flip(path, position=-1):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_a_sound_checkpoint(folder):
    report = verify(folder, strict=True)
    assert report.ok
    assert report.findings == []
    assert {status.checked for status in report.files} == {"sha256 (manifest)"}
    assert {status.tensors for status in report.files} == {1, None}
    assert str(report).endswith(f"{folder}: sound")
    data = json.loads(json.dumps(report.to_dict()))
    assert data["ok"] is True
    assert len(data["files"]) == 6


def test_every_bit_of_the_data_counts(folder):
    for position in range(-32, 0):
        flip(folder / SHARD, position)
        report = verify(folder)
        assert not report.ok
        assert [finding.file for finding in report.findings] == [SHARD]
        assert "are not those of the manifest (other SHA-256). Bits were changed" in report.findings[0].message
        assert verify(folder, hashes=False).ok
        flip(folder / SHARD, position)
    assert verify(folder).ok


def test_every_fault_is_listed(folder):
    (folder / SHARD).write_bytes(b"")
    (folder / "model-00003-of-00004.safetensors").unlink()
    flip(folder / "model-00004-of-00004.safetensors")
    report = verify(folder)
    assert not report.ok
    text = str(report)
    for part in (
        "The file is empty",
        "there is no file 'model-00003-of-00004.safetensors'",
        "other SHA-256",
        "NOT SOUND",
    ):
        assert part in text
    bad = {status.name for status in report.files if not status.ok}
    assert bad == {f"model-0000{i}-of-00004.safetensors" for i in (2, 3, 4)}


def test_structure_without_a_manifest(folder):
    (folder / "modelwright.manifest.json").unlink()
    report = verify(folder)
    assert report.ok
    assert {status.checked for status in report.files} == {"structure"}
    save_file({"other": torch.ones(1)}, folder / SHARD)
    assert "promises the tensor 'layers.1.weight'" in verify(folder).findings[0].message


def test_a_foreign_save_is_recognised(folder):
    other = {name: value + 1 for name, value in WEIGHTS.items()}
    save_checkpoint(other, folder / "theirs", max_shard_size=40)
    for path in (folder / "theirs").glob("*.safetensors"):
        later = path.stat().st_mtime + 60
        path.replace(folder / path.name)
        os.utime(folder / path.name, (later, later))
    report = verify(folder)
    assert not report.ok
    assert "It is newer than the manifest: another program has written it" in report.findings[0].message


def test_an_edited_config_is_a_warning(folder):
    (folder / "config.json").write_text('{"edited": 1}\n')
    report = verify(folder)
    assert report.ok
    assert report.findings[0].severity == "warning"
    assert "config.json: expected 3 bytes by the manifest, found 14" in report.findings[0].message
    assert not verify(folder, strict=True).ok


def test_leftovers_and_links(folder, tmp_path_factory):
    (folder / "model-00001-of-00009.safetensors").write_bytes(b"x")
    (folder / ".modelwright-tmp-dead").mkdir()
    outside = tmp_path_factory.mktemp("out") / "config.json"
    (folder / "config.json").rename(outside)
    (folder / "config.json").symlink_to(outside)
    report = verify(folder)
    assert report.ok
    assert sorted(finding.file for finding in report.findings) == [
        ".modelwright-tmp-dead",
        "config.json",
        "model-00001-of-00009.safetensors",
    ]
    assert not verify(folder, strict=True).ok


def test_single_beside_index(folder):
    save_file(WEIGHTS, folder / "model.safetensors")
    report = verify(folder)
    assert not report.ok
    assert "both model.safetensors and model.safetensors.index.json are there" in report.findings[0].message


def test_total_size_that_does_not_fit(folder):
    path = folder / "model.safetensors.index.json"
    path.write_text(path.read_text().replace('"total_size": 128', '"total_size": 129'))
    (folder / "modelwright.manifest.json").unlink()
    assert "it states a total_size of 129 bytes, the shards hold 128" in verify(folder).findings[0].message


def test_variants(tmp_path):
    save_checkpoint(WEIGHTS, tmp_path, variant="fp16", max_shard_size=40)
    save_checkpoint(WEIGHTS, tmp_path)
    assert len(verify(tmp_path).files) == 6
    assert verify(tmp_path, variant="fp16").files[0].name == "model.safetensors.index.fp16.json"
    flip(tmp_path / "model.fp16-00001-of-00004.safetensors")
    assert not verify(tmp_path).ok
    assert not verify(tmp_path, variant="fp16").ok


def test_hub_blob_names_are_hashes(tmp_path):
    cache = tmp_path / "models--o--n"
    snapshot, blobs = cache / "snapshots" / "r", cache / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    save_file(WEIGHTS, tmp_path / "w")
    data = (tmp_path / "w").read_bytes()
    for name in (hashlib.sha256(data).hexdigest(), hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()):
        (blobs / name).write_bytes(data)
        (snapshot / "model.safetensors").unlink(missing_ok=True)
        (snapshot / "model.safetensors").symlink_to(f"../../blobs/{name}")
        assert verify(snapshot, strict=True).ok
        flip(blobs / name)
        report = verify(snapshot)
        assert not report.ok
        assert "not what the Hub has under this name" in report.findings[0].message


def test_damaged_manifest_is_a_warning(folder):
    (folder / "modelwright.manifest.json").write_text("[]")
    report = verify(folder)
    assert report.ok
    assert "expected a manifest of modelwright" in report.findings[0].message


def test_no_checkpoint(tmp_path):
    report = verify(tmp_path)
    assert not report.ok
    assert "found no weights" in report.findings[0].message
    with pytest.raises(RepoError, match="expected a folder"):
        verify(tmp_path / "nope")
