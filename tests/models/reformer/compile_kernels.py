"""Compiles the Triton kernels for GPUs that are not there, and counts the comparisons of positions in what comes out.

Run by test_triton_kernels.py in a process of its own, with Triton on the path; prints one JSON line for each kernel.
"""

import itertools
import json
import re

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from modelwright.models.reformer import triton_attention, triton_kernels
from modelwright.models.reformer.local_kernel import Windows

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}
FLOATS = {"scale", "gain"}


def pointers(vector: str, shared: bool, masked: bool, several: bool, statistics: bool) -> dict[str, str | None]:
    """The type of every pointer of both kernels; None for what this variant does without."""
    sums = "*fp32" if several else vector
    return {
        **dict.fromkeys(("q_ptr", "k_ptr", "v_ptr"), vector),
        "order_ptr": "*i32" if shared else None,
        "mask_ptr": "*u8" if masked else None,
        "grad_ptr": vector,
        **dict.fromkeys(("kept_ptr", "delta_ptr"), "*fp32"),
        **dict.fromkeys(("total_ptr", "share_ptr"), "*fp32" if several else None),
        "out_ptr": None if statistics else sums,
        **dict.fromkeys(("dq_ptr", "dv_ptr"), sums),
        "dk_ptr": None if shared else sums,
    }


def compile_variant(kernel, target, launch, given, constants) -> str:
    """Return the assembly of one variant."""
    signature, fixed = {}, {}
    for name in kernel.arg_names:
        value = constants.get(name, given.get(name, "i32"))
        if name in constants or value is None:
            signature[name], fixed[name] = "constexpr", value
        else:
            signature[name] = "fp32" if name in FLOATS else "i64" if name == "seed" else value
    # What Triton knows of the arguments of a usual launch.
    even = [i for i, name in enumerate(kernel.arg_names) if signature[name][0] == "*" or name in ("length", "chunk")]
    source = ASTSource(kernel, signature, fixed, {(i,): [["tt.divisibility", 16]] for i in even})
    options = {key: launch.windowed[key] for key in ("num_warps", "num_stages")}
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options=options).asm["ptx"]


def main() -> None:
    """Go through the variants."""
    for target, dtype, size, shared in itertools.product((80, 90), TYPES, (64, 128), (False, True)):
        shape = Windows(64, 1, 0, causal=True, dropout=0.1, seed=2**40)
        q, mask, rounds = torch.empty(1, 128, size, dtype=dtype), torch.ones(1, 128).bool(), 2 if shared else 1
        launch = triton_attention._Launch(q, 1, rounds, mask, shape)
        for kernel in (triton_kernels.attend, triton_kernels.attend_backward):
            statistics = kernel is triton_kernels.attend and not shared
            given = pointers(TYPES[dtype], shared, True, rounds > 1, statistics)
            constants = {**launch.constants, **launch.windowed, "SHARED": shared, "STATISTICS": statistics}
            assembly = compile_variant(kernel, target, launch, given, constants)
            passes = 1 if kernel is triton_kernels.attend else 2
            tile = launch.tile * launch.windowed["BLOCK_K"] // (32 * launch.windowed["num_warps"])
            variant = [kernel.__name__, target, str(dtype), size, shared]
            found = len(re.findall(r"setp\.(?:lt|gt)\.f32", assembly))
            print(json.dumps({"variant": variant, "comparisons": found, "least": passes * tile}), flush=True)


if __name__ == "__main__":
    main()
