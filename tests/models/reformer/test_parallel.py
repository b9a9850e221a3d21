"""A Reformer in several processes (DistributedDataParallel, fully_shard) and as replicas (DataParallel)."""

import importlib
import os
from collections.abc import Callable

import pytest
import torch
import torch.multiprocessing as mp
from small_reformer import QUIET, assert_same_gradients, build, gradients, ids
from torch.nn.parallel import DistributedDataParallel

from modelwright.models.reformer import encoder

TINY = {**QUIET, "attn_layers": ["local", "lsh"], "initializer_range": 0.3}
LR = 0.5


def accumulated(model, tokens, synchronize: Callable[[bool], None] = lambda last: None):
    """Run two backwards, of which only the last one gathers gradients from the other processes."""
    for last in (False, True):
        synchronize(last)
        model(tokens, labels=tokens).loss.backward()


def _distributed(shard):
    model = DistributedDataParallel(build(**TINY).train())
    accumulated(model, shard, lambda last: setattr(model, "require_backward_grad_sync", last))
    return {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}


def _sharded(shard, layerwise, precision=None):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    settings = {"mesh": init_device_mesh("cpu", (2,))}
    if precision is not None:
        settings["mp_policy"] = MixedPrecisionPolicy(param_dtype=precision)
    model = build(**TINY).train()
    for layer in model.reformer.encoder.layers if layerwise else ():
        fully_shard(layer, **settings)
    fully_shard(model, **settings)
    reversible, stack = [], encoder.reversible_stack
    encoder.reversible_stack = lambda *args, **kwargs: reversible.append(1) or stack(*args, **kwargs)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for _ in range(2):
        accumulated(model, shard, model.set_requires_gradient_sync)
        found = {name: p.grad.full_tensor() for name, p in model.named_parameters()}
        optimizer.step()
        optimizer.zero_grad()
    encoder.reversible_stack = stack
    assert len(reversible) == 4
    return {"gradients": found, "weights": {name: p.full_tensor() for name, p in model.named_parameters()}}


def _train_one_shard(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    shard = ids()[rank : rank + 1]
    results = {
        "distributed": _distributed(shard),
        "whole": _sharded(shard, layerwise=False),
        "layers": _sharded(shard, layerwise=True),
        "bf16": _sharded(shard, layerwise=True, precision=torch.bfloat16),
    }
    if rank == 0:
        torch.save(results, f"{folder}/results.pt")
    torch.distributed.barrier()
    os._exit(0)  # without gloo's teardown, which may wait for a peer that has gone


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    processes = mp.spawn(_train_one_shard, (str(folder),), nprocs=2, join=False)
    ended = processes.join(timeout=120) or processes.join(timeout=120)
    for process in processes.processes:
        process.kill()
    assert ended, "the two processes wait for each other"
    return torch.load(folder / "results.pt")


@pytest.fixture(scope="module")
def of_one_process():
    model = build(**TINY).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    steps = []
    for _ in range(2):
        accumulated(model, ids())
        steps.append({name: p.grad.clone() for name, p in model.named_parameters()})
        optimizer.step()
        optimizer.zero_grad()
    return {"first": steps[0], "gradients": steps[1], "weights": {n: p.detach() for n, p in model.named_parameters()}}


def test_two_processes_with_accumulation_are_one_batch(of_two_processes, of_one_process):
    for name, gradient in of_one_process["first"].items():
        assert torch.allclose(of_two_processes["distributed"][name], gradient, atol=1e-5), name


@pytest.mark.parametrize("sharded", ["whole", "layers"])
def test_sharded_weights_take_the_steps_of_whole_ones(sharded, of_two_processes, of_one_process):
    for kind in ("gradients", "weights"):
        for name, expected in of_one_process[kind].items():
            assert torch.allclose(of_two_processes[sharded][kind][name], expected, atol=1e-4), (kind, name)


def test_layers_sharded_in_bf16_learn_about_the_same(of_two_processes, of_one_process):
    flat, near = (
        torch.cat([side["gradients"][name].flatten() for name in of_one_process["gradients"]])
        for side in (of_one_process, of_two_processes["bf16"])
    )
    assert torch.nn.functional.cosine_similarity(flat, near, dim=0) > 0.95


@pytest.fixture
def on_the_cpu(monkeypatch):
    """Let `replicate` make copies on the CPU: torch has a broadcast for GPUs only, and nothing else in it needs one."""

    def copies(tensors, devices, detach=False):
        return [[tensor.detach() if detach else tensor.view_as(tensor) for tensor in tensors] for _ in devices]

    module = importlib.import_module("torch.nn.parallel.replicate")
    monkeypatch.setattr(module, "_broadcast_coalesced_reshape", copies)
    return module.replicate


@pytest.mark.parametrize("recompute", [False, True])
def test_replicas_send_their_gradients_to_the_model(recompute, on_the_cpu):
    # 4.x does not work in DataParallel: replicas have no parameters (pytorch issue 36035), and a stack that works with
    # those gives none of its layers a gradient.
    model = build(**TINY, recompute_attention=recompute).train()
    _, expected = gradients(model, ids())
    model.zero_grad()
    replicas = on_the_cpu(model, [0, 1])
    assert not list(replicas[0].parameters())
    losses = [replica(shard, labels=shard).loss for replica, shard in zip(replicas, ids().split(1), strict=True)]
    torch.stack(losses).mean().backward()
    assert_same_gradients(expected, {name: p.grad for name, p in model.named_parameters()})


def test_replicas_return_what_can_be_gathered(on_the_cpu):
    model = build(**TINY).eval()
    with torch.no_grad():
        assert model(ids()).past_buckets_states is not None
        outputs = [replica(shard) for replica, shard in zip(on_the_cpu(model, [0, 1]), ids().split(1), strict=True)]
        assert [list(output) for output in outputs] == [["logits"]] * 2
        assert torch.allclose(torch.cat([output.logits for output in outputs]), model(ids()).logits, atol=1e-5)
