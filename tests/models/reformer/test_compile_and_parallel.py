"""A Reformer under torch.compile, torch.export and DistributedDataParallel."""

import os

import pytest
import torch
import torch.multiprocessing as mp
from small_reformer import QUIET, build, ids
from torch.nn.parallel import DistributedDataParallel

TINY = {**QUIET, "attn_layers": ["local", "lsh"], "initializer_range": 0.3}


def gradients(model, tokens):
    model.zero_grad()
    model(tokens, labels=tokens).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("masked", [False, True])
def test_exported_evaluation_is_the_model(masked):
    model = build(**TINY).eval()
    inputs = {"input_ids": ids()}
    if masked:
        inputs["attention_mask"] = torch.ones_like(ids()).index_fill(1, torch.arange(50, 64), 0)
    program = torch.export.export(model, (), {**inputs, "return_dict": False}, strict=False)
    targets = [str(node.target) for node in program.graph.nodes]
    for name in ("reformer_local_attention", "reformer_lsh_attention", "reformer_hash_order"):
        assert sum(name in target for target in targets) == 1
    with torch.no_grad():
        other = {**inputs, "input_ids": ids().flip(1)}
        found, expected = program.module()(**other, return_dict=False)[0], model(**other).logits
    assert torch.allclose(found, expected, atol=1e-5)


def test_compiled_training_step_is_the_eager_one():
    model = build(**TINY).train()
    expected = gradients(model, ids())
    compiled = torch.compile(model, backend="aot_eager")
    compiled.zero_grad()
    compiled(ids(), labels=ids()).loss.backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], atol=1e-6), name


def _train_one_shard(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = DistributedDataParallel(build(**TINY).train())
    shard = ids()[rank : rank + 1]
    with model.no_sync():
        model(shard, labels=shard).loss.backward()
    model(shard, labels=shard).loss.backward()
    if rank == 0:
        grads = {name.removeprefix("module."): p.grad for name, p in model.named_parameters()}
        torch.save(grads, f"{folder}/gradients.pt")
    torch.distributed.barrier()
    os._exit(0)  # without gloo's teardown, which may wait for a peer that has gone


def test_two_processes_with_accumulation_are_one_batch(tmp_path):
    processes = mp.spawn(_train_one_shard, (str(tmp_path),), nprocs=2, join=False)
    ended = processes.join(timeout=120) or processes.join(timeout=120)
    for process in processes.processes:
        process.kill()
    assert ended, "the two processes wait for each other"
    found = torch.load(tmp_path / "gradients.pt")
    model = build(**TINY).train()
    expected = gradients(model, ids())
    for name, gradient in expected.items():
        assert torch.allclose(found[name], 2 * gradient, atol=1e-5), name
