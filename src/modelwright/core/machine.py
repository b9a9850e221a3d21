"""What this machine offers: versions, optional packages, processor, devices, the cache of the hub. It is only read."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from modelwright.core.optional import is_available
from modelwright.core.version import __version__

REQUIRED = ("torch", "safetensors", "huggingface_hub", "tokenizers", "sentencepiece", "accelerate")
# Package -> the extra that installs it, and what works with it.
OPTIONAL = {
    "onnx": ("onnx", "writing ONNX models"),
    "onnxscript": ("onnx", "writing ONNX models"),
    "onnxruntime": ("onnx", "running ONNX models"),
    "keras": ("keras", "modelwright.keras_layers and the TF* names"),
    "matplotlib": ("plots", "drawing loss curves"),
    "peft": ("peft", "adapters"),
    "rouge_score": ("eval", "the ROUGE metric"),
    "libcst": ("migrate", "modelwright migrate"),
    "psutil": ("dev", "add_memory_hooks, and the peak memory on Windows"),
}
# Flag of Linux and of torch -> what it speeds up.
CPU_FEATURES = {
    "avx2": "fp32, twice as fast as without",
    "avx512f": "fp32 on 512 bits",
    "avx512_vnni": "INT8 products (on 512 bits)",
    "avx_vnni": "INT8 products (on 256 bits)",
    "avx512_bf16": "bfloat16 products",
    "amx_tile": "matrix tiles, which the next three use",
    "amx_bf16": "bfloat16 matrices",
    "amx_int8": "INT8 matrices",
    "amx_fp16": "float16 matrices",
    "asimd": "fp32 (Arm NEON)",
    "bf16": "bfloat16 products (Arm)",
    "i8mm": "INT8 matrices (Arm)",
}


def describe_machine(cpuinfo: str | os.PathLike[str] = "/proc/cpuinfo") -> dict[str, Any]:
    """Return what is here, as JSON-ready data; `cpuinfo` is the file in which Linux describes its processors."""
    return {
        "modelwright": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version_of(name) for name in REQUIRED},
        "optional": {
            name: {"version": version_of(name), "extra": extra, "enables": enables}
            for name, (extra, enables) in OPTIONAL.items()
        },
        "cpu": _cpu(Path(cpuinfo)),
        "devices": _devices(),
        "hub": _hub(),
    }


def version_of(package: str) -> str | None:
    """Return the version of a package that can be imported, "unknown" if it does not say, None if it is not there."""
    if not is_available(package):
        return None
    for name in (package, package.replace("_", "-")):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def _cpu(cpuinfo: Path) -> dict[str, Any]:
    import torch

    flags, name = _flags_and_name(cpuinfo)
    return {
        "name": name or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "torch_uses": torch.backends.cpu.get_cpu_capability(),
        # Only Linux says which there are; None is "not known".
        "features": None if flags is None else {each: each in flags for each in CPU_FEATURES if _is_of(each, flags)},
    }


def _flags_and_name(cpuinfo: Path) -> tuple[set[str] | None, str | None]:
    """Return the flags of the first processor in the file and its name; None for what it does not say."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None, None
    values: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        values.setdefault(key.strip().lower(), value.strip())
    flags = values.get("flags") or values.get("features")
    return (set(flags.split()) if flags else None), values.get("model name")


def _is_of(feature: str, flags: set[str]) -> bool:
    """Tell whether a feature is one that such a processor may have: Arm has "asimd" always, x86 has "sse2"."""
    is_arm = feature in ("asimd", "bf16", "i8mm")
    return is_arm == ("asimd" in flags)


def _devices() -> list[dict[str, Any]]:
    import torch

    devices: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        found = torch.cuda.get_device_properties(index)
        bf16 = torch.cuda.get_device_capability(index) >= (8, 0)
        devices.append({"device": f"cuda:{index}", "name": found.name, "bytes": found.total_memory, "bfloat16": bf16})
    if torch.backends.mps.is_available():
        devices.append({"device": "mps", "name": "Apple GPU", "bytes": None, "bfloat16": True})
    return devices


def _hub() -> dict[str, Any]:
    from huggingface_hub import constants, get_token

    cache = Path(constants.HF_HUB_CACHE)
    models = sorted(cache.glob("models--*")) if cache.is_dir() else []
    folder = next((each for each in (cache, *cache.parents) if each.is_dir()), cache)
    return {
        "cache": str(cache),
        "cached_models": len(models),
        "writable": os.access(folder, os.W_OK),
        "offline": bool(constants.HF_HUB_OFFLINE),
        "endpoint": constants.ENDPOINT,
        "token": get_token() is not None,
    }
