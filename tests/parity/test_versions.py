"""What transformers 4.37.2, 4.57.1 and 5.23.0 write is read here bit for bit, and the reverse.

tools/golden_checkpoints.py, run by 4.37.2 and 5.23.0, has written the small checkpoints beside this file, and digests
of all tensors as they were in the writer's memory. The slow test lets every version read what we write of them.
"""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import transformers

import modelwright

pytestmark = pytest.mark.parity
ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "checkpoints"
TOOL = ROOT / "tools" / "golden_checkpoints.py"
tool = runpy.run_path(str(TOOL))
PYTHONS = {
    "4.37.2": ROOT / ".peers" / "transformers-4.37" / "bin" / "python",
    "4.57.1": Path(sys.executable),
    "5.23.0": ROOT / ".peers" / "transformers-5" / "bin" / "python",
}
FOLDERS = [str(path.parent.relative_to(GOLDEN)) for path in sorted(GOLDEN.rglob("config.json"))]
LAYOUTS = tool["LAYOUTS"]


def expected(version, name):
    return json.loads((GOLDEN / version / "digests.json").read_text())[name]


def load(folder, name):
    model, info = getattr(modelwright, name).from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    return model


def same(found, wanted):
    """Whether the tensors are the same; newer versions do not list buffers that are computed anyway."""
    assert set(found) <= set(wanted)
    return {name: wanted[name] for name in found} == found


def test_there_is_a_checkpoint_of_every_class_and_layout():
    assert len(FOLDERS) == len(tool["CONFIGS"]) * (3 + 2)


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_other_versions_wrote_is_read_bit_for_bit(folder):
    version, name, layout = folder.split("/")
    model = load(GOLDEN / folder, name)
    assert len(model.load_report.files) > 1 or layout != "sharded"
    assert same(tool["digests"](model), expected(version, name))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", tool["CONFIGS"])
def test_what_4_57_writes_is_read_bit_for_bit_and_written_as_it_writes_it(tmp_path, name, layout):
    theirs = getattr(transformers, name).from_pretrained(GOLDEN / "4.37.2" / name / "single")
    theirs.save_pretrained(tmp_path / "theirs", **LAYOUTS[layout])
    model = load(tmp_path / "theirs", name)
    assert same(tool["digests"](model), tool["digests"](theirs))
    model.save_pretrained(tmp_path / "ours", **LAYOUTS[layout])
    written = [path for path in (tmp_path / "theirs").iterdir() if "model" in path.name]
    assert written
    for path in written:
        ours = tmp_path / "ours" / path.name
        assert ours.exists()
        if path.suffix != ".bin":  # a pickle is not written twice alike
            assert ours.read_bytes() == path.read_bytes(), path.name


@pytest.mark.slow
@pytest.mark.parametrize("version", PYTHONS)
def test_other_versions_read_ours_bit_for_bit(tmp_path, version):
    assert PYTHONS[version].exists(), "no such transformers in .peers: run make peers"
    wanted = {}
    for name in tool["CONFIGS"]:
        model = load(GOLDEN / "4.37.2" / name / "single", name)
        for layout, options in LAYOUTS.items():
            folder = tmp_path / name / layout
            model.save_pretrained(folder, **options)
            wanted[str(folder)] = expected("4.37.2", name)
    done = subprocess.run([PYTHONS[version], TOOL, "read", *wanted], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == wanted.keys()
    for folder, digests in found.items():
        assert same(digests, wanted[folder]), folder
