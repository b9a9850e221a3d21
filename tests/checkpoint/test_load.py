"""Plans say what will happen; loading does just that."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from modelwright.checkpoint.load import load_into, materialise, module_targets, tied_groups
from modelwright.checkpoint.memory import MemoryCheckpoint
from modelwright.checkpoint.names import Rename
from modelwright.checkpoint.open import open_checkpoint
from modelwright.checkpoint.plan import make_load_plan
from modelwright.checkpoint.safetensors_file import SafetensorsFile
from modelwright.checkpoint.save import save_checkpoint
from modelwright.checkpoint.strictness import Strictness
from modelwright.core.errors import CheckpointMismatchError, InputError
from modelwright.hub.local import LocalRepo


class Net(nn.Module):
    def __init__(self, tied=False, device=None):
        super().__init__()
        self.embed = nn.Embedding(10, 4, device=device)
        self.layers = nn.ModuleList(nn.Linear(4, 4, device=device) for _ in range(3))
        self.norm = nn.BatchNorm1d(4, device=device)
        self.head = nn.Linear(4, 10, bias=False, device=device)
        self.register_buffer("scratch", torch.zeros(2, device=device), persistent=False)
        if tied:
            self.head.weight = self.embed.weight


def plan_for(module, infos, **options):
    return make_load_plan(infos, module_targets(module), tied=tied_groups(module), **options)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    save_checkpoint(Net().state_dict(), tmp_path, max_shard_size=150)
    return tmp_path


@pytest.mark.parametrize("device", ["meta", None])
@pytest.mark.parametrize("mmap", [True, False])
def test_load_equals_load_state_dict(folder, device, mmap):
    torch.manual_seed(0)
    wanted = Net().state_dict()
    net = Net(device=device)
    net.layers[1].weight.requires_grad_(False)
    with open_checkpoint(LocalRepo(folder), mmap=mmap) as checkpoint:
        plan = plan_for(net, checkpoint.infos)
        report = load_into(net, checkpoint, plan)
    assert set(wanted) == set(net.state_dict()) == set(report.loaded_keys)
    assert all(torch.equal(net.state_dict()[name], wanted[name]) for name in wanted)
    assert not any(tensor.is_meta for tensor in net.state_dict().values())
    assert not net.layers[1].weight.requires_grad
    assert net.layers[0].weight.requires_grad
    assert report.missing_keys == report.unexpected_keys == report.to_initialise == []
    assert report.nbytes == sum(tensor.nbytes for tensor in wanted.values())
    assert len(report.files) > 2
    assert "nothing missing, nothing unexpected" in str(report)


def test_bin_loads_too(tmp_path):
    net = Net()
    save_checkpoint(net.state_dict(), tmp_path, safe=False, max_shard_size=150)
    other = Net(device="meta")
    with open_checkpoint(LocalRepo(tmp_path)) as checkpoint:
        load_into(other, checkpoint, plan_for(other, checkpoint.infos))
    assert all(torch.equal(other.state_dict()[name], value) for name, value in net.state_dict().items())


def test_a_loaded_model_is_private(folder):
    nets = []
    with open_checkpoint(LocalRepo(folder)) as checkpoint:
        for _ in range(2):
            net = Net(device="meta")
            load_into(net, checkpoint, plan_for(net, checkpoint.infos))
            nets.append(net)
    with torch.no_grad():
        for parameter in nets[0].parameters():
            parameter.zero_()
    assert nets[1].embed.weight.abs().sum() > 0
    with open_checkpoint(LocalRepo(folder)) as checkpoint:
        assert checkpoint.read("embed.weight").abs().sum() > 0


def test_dtype_casts_floats_only(folder):
    net = Net(device="meta")
    with open_checkpoint(LocalRepo(folder)) as checkpoint:
        plan = plan_for(net, checkpoint.infos, dtype=torch.bfloat16)
        load_into(net, checkpoint, plan)
        assert torch.equal(net.embed.weight, checkpoint.read("embed.weight").bfloat16())
    assert net.layers[0].weight.dtype == torch.bfloat16
    assert net.norm.num_batches_tracked.dtype == torch.int64
    assert "bfloat16" in str(plan)


def test_missing_stays_and_is_listed(tmp_path):
    net = Net(device="meta")
    state = {name: value for name, value in Net().state_dict().items() if not name.startswith(("layers.1", "head"))}
    checkpoint = MemoryCheckpoint({**state, "pooler.weight": torch.ones(1), "stats.step": torch.ones(1)})
    plan = plan_for(net, checkpoint.infos, keys_to_ignore_missing=["head"], keys_to_ignore_unexpected=[r"^stats\."])
    report = load_into(net, checkpoint, plan)
    assert report.missing_keys == ["layers.1.weight", "layers.1.bias"]
    assert report.to_initialise == ["layers.1.weight", "layers.1.bias", "head.weight"]
    assert report.unexpected_keys == ["pooler.weight"]
    assert [name for name, value in net.state_dict().items() if value.is_meta] == report.to_initialise
    assert "missing     layers.1.bias" in str(report)
    assert "unexpected  pooler.weight" in str(report)
    materialise(net, report.to_initialise)
    assert not any(value.is_meta for value in net.state_dict().values())
    assert json.loads(json.dumps(report.to_dict()))["unexpected_keys"] == ["pooler.weight"]
    assert set(report.loading_info()) == {"missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"}


def test_strict(tmp_path):
    net = Net()
    before = net.embed.weight.clone()
    state = {**Net().state_dict(), "extra": torch.ones(1)}
    del state["layers.0.weight"], state["layers.2.weight"]
    checkpoint = MemoryCheckpoint(state)
    with pytest.raises(CheckpointMismatchError) as error:
        load_into(net, checkpoint, plan_for(net, checkpoint.infos), strictness=Strictness.of("X", True))
    assert "missing: layers.{0,2}.weight; unexpected: extra" in str(error.value)
    assert torch.equal(net.embed.weight, before)


def test_shape_mismatch_names_key_shapes_and_file(tmp_path):
    save_file({**Net().state_dict(), "bert.head.weight": torch.ones(2, 4)} | {}, tmp_path / "model.safetensors")
    state = {f"bert.{name}": value for name, value in Net().state_dict().items()}
    state["bert.head.weight"] = torch.ones(2, 4)
    save_file(state, tmp_path / "model.safetensors")
    net = Net(device="meta")
    with SafetensorsFile(tmp_path / "model.safetensors") as checkpoint:
        plan = plan_for(net, checkpoint.infos, base_model_prefix="bert")
        with pytest.raises(CheckpointMismatchError) as error:
            load_into(net, checkpoint, plan)
        assert (
            f"head.weight: stored [2, 4] float32 as bert.head.weight in {tmp_path / 'model.safetensors'}, the model "
            "expects [10, 4] float32" in str(error.value)
        )
        assert net.embed.weight.is_meta
        report = load_into(net, checkpoint, plan, strictness=Strictness(mismatched="warn"))
    assert report.mismatched_keys == [("head.weight", (2, 4), (10, 4))]
    assert report.to_initialise == ["head.weight"]
    assert report.missing_keys == []
    assert report.renamed["bert.embed.weight"] == "embed.weight"
    assert "stored [2, 4], model [10, 4]" in str(report)
    assert "10 x 4 (stored 2 x 4)" in str(plan)


def test_integers_are_not_taken_for_floats():
    net = Net()
    checkpoint = MemoryCheckpoint({**Net().state_dict(), "head.weight": torch.ones(10, 4, dtype=torch.int8)})
    with pytest.raises(
        CheckpointMismatchError, match=r"head\.weight: stored \[10, 4\] int8 .*expects \[10, 4\] float32"
    ):
        load_into(net, checkpoint, plan_for(net, checkpoint.infos))


def test_another_architecture_is_refused():
    checkpoint = MemoryCheckpoint({f"h.{i}.attn.weight": torch.ones(2) for i in range(4)})
    with pytest.raises(CheckpointMismatchError, match=r"none of its tensors \(h\.\{0\.\.3\}\.attn\.weight\) belongs"):
        load_into(Net(), checkpoint, plan_for(Net(), checkpoint.infos))


class TestTied:
    def test_one_parameter_for_both(self, tmp_path):
        torch.manual_seed(1)
        source = Net(tied=True)
        save_checkpoint(source.state_dict(), tmp_path, tied=tied_groups(source))
        for device in ("meta", None):
            net = Net(tied=True, device=device)
            with open_checkpoint(LocalRepo(tmp_path)) as checkpoint:
                assert "head.weight" not in checkpoint.infos
                report = load_into(net, checkpoint, plan_for(net, checkpoint.infos))
            assert net.head.weight is net.embed.weight
            assert torch.equal(net.head.weight, source.embed.weight)
            assert report.missing_keys == report.tied_conflicts == []
            assert report.tied == {"head.weight": "embed.weight"}

    def test_only_the_other_name_is_stored(self):
        state = Net(tied=True).state_dict()
        del state["embed.weight"]
        net = Net(tied=True, device="meta")
        report = load_into(net, MemoryCheckpoint(state), plan_for(net, MemoryCheckpoint(state).infos))
        assert net.head.weight is net.embed.weight
        assert torch.equal(net.embed.weight, state["head.weight"])
        assert report.missing_keys == []

    @pytest.mark.parametrize("differs", [True, False])
    def test_both_are_stored(self, tmp_path, differs):
        state = {name: value.clone() for name, value in Net(tied=True).state_dict().items()}
        if differs:
            state["head.weight"] += 1
        save_file(state, tmp_path / "model.safetensors")
        net = Net(tied=True, device="meta")
        with SafetensorsFile(tmp_path / "model.safetensors") as checkpoint:
            report = load_into(net, checkpoint, plan_for(net, checkpoint.infos))
        assert net.head.weight is net.embed.weight
        assert torch.equal(net.embed.weight, state["embed.weight"])
        assert report.unexpected_keys == []
        assert report.tied_conflicts == ([("embed.weight", "head.weight")] if differs else [])
        assert ("the value of embed.weight is used" in str(report)) == differs

    def test_neither_is_stored(self):
        state = {name: value for name, value in Net().state_dict().items() if "layers" in name}
        net = Net(tied=True, device="meta")
        report = load_into(net, MemoryCheckpoint(state), plan_for(net, MemoryCheckpoint(state).infos))
        assert "embed.weight" in report.missing_keys
        assert "head.weight" not in report.missing_keys
        materialise(net, report.to_initialise)
        assert net.head.weight is net.embed.weight
        assert not net.head.weight.is_meta

    def test_a_plan_that_does_not_know_of_the_tie_is_refused(self):
        net = Net(tied=True)
        checkpoint = MemoryCheckpoint(net.state_dict())
        with pytest.raises(InputError, match=r"embed\.weight, head\.weight are one parameter of Net"):
            load_into(net, checkpoint, make_load_plan(checkpoint.infos, module_targets(net)))


def test_to_parameter_is_the_only_way_in():
    seen = []

    class Marked(nn.Parameter):
        pass

    def hook(name, tensor, requires_grad):
        seen.append(name)
        return Marked(tensor * 2, requires_grad=requires_grad)

    net, state = Net(device="meta"), Net().state_dict()
    del state["head.weight"]
    report = load_into(net, MemoryCheckpoint(state), plan_for(net, MemoryCheckpoint(state).infos), to_parameter=hook)
    materialise(net, report.to_initialise, to_parameter=hook)
    assert set(seen) == {name for name, _ in net.named_parameters()}
    assert all(isinstance(parameter, Marked) for parameter in net.parameters())
    assert torch.equal(net.embed.weight, 2 * state["embed.weight"])


def test_plan_is_data():
    state = {f"encoder.{name}": value for name, value in Net().state_dict().items()}
    plan = plan_for(Net(), MemoryCheckpoint(state).infos, rules=[Rename("^encoder[.]", "", inverse=("^", "encoder."))])
    data = json.loads(json.dumps(plan.to_dict()))
    first = data["entries"][0]
    assert first == {
        "action": "load",
        "target": "embed.weight",
        "source": "encoder.embed.weight",
        "file": "state_dict (in memory)",
        "stored_shape": [10, 4],
        "stored_dtype": "float32",
        "shape": [10, 4],
        "dtype": "float32",
        "tied_to": None,
        "nbytes": 160,
    }
    assert data["bytes"]["load"] == sum(value.nbytes for value in state.values())
    line = next(line for line in str(plan).splitlines() if "num_batches" in line)
    assert line.split() == [
        "load",
        "norm.num_batches_tracked",
        "encoder.norm.num_batches_tracked",
        *["int64"] * 2,
        "scalar",
    ]


def test_rows_of_a_plan_fold_over_layers():
    net = Net()
    text = str(plan_for(net, MemoryCheckpoint(net.state_dict()).infos))
    assert "load    layers.{0..2}.weight" in text
    assert text.endswith("13 to load, 0 to initialise, 0 tied; 0 unexpected, 0 mismatched; 632 bytes in the model")


def test_bad_expression_in_keys_to_ignore():
    with pytest.raises(InputError, match=r"keys to ignore: not a regular expression: '\('"):
        make_load_plan({}, {"a": ((1,), torch.float32)}, keys_to_ignore_missing=["("])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("hook", ["Watch()", "None"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_anonymous_memory_is_the_model_and_one_tensor(tmp_path, dtype, hook):
    import subprocess

    save_file({f"layers.{i}.weight": torch.ones(1024, 1024) for i in range(24)}, tmp_path / "model.safetensors")
    code = f"""
import re, threading, torch
from pathlib import Path
from torch import nn
from modelwright.checkpoint.load import load_into, module_targets
from modelwright.checkpoint.open import open_checkpoint
from modelwright.checkpoint.plan import make_load_plan
from modelwright.hub.local import LocalRepo
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
torch.ones(1, dtype=torch.float32).to(torch.bfloat16)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(1024, 1024, bias=False, device="meta") for _ in range(24))
peak = start = anonymous()
class Watch:
    def __call__(self, name, tensor, requires_grad):
        global peak
        peak = max(peak, anonymous())
        return nn.Parameter(tensor)
def watch_all_the_time():
    global peak
    while not done.wait(0.0005):
        peak = max(peak, anonymous())
done = threading.Event()
threading.Thread(target=watch_all_the_time).start()
net = Net()
with open_checkpoint(LocalRepo("{tmp_path}")) as checkpoint:
    plan = make_load_plan(checkpoint.infos, module_targets(net), dtype=torch.{dtype})
    load_into(net, checkpoint, plan, to_parameter={hook})
done.set()
print(max(peak, anonymous()) - start)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    size = 24 * 1024 * 1024 * 2 if dtype == "bfloat16" else 0  # in the stored dtype, everything is mapped
    assert size * 0.9 <= int(done.stdout) <= size + (4 << 20) + (8 << 20)
