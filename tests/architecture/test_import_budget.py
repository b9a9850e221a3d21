"""What an import loads, counted in modules (seconds are measured in benchmarks/import_time.py)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from modelwright import _public

# Packages that cost more than they give at import time.
HEAVY = {
    "accelerate", "datasets", "huggingface_hub", "jax", "keras", "matplotlib", "onnx", "onnxruntime", "pandas", "peft",
    "rich", "scipy", "sentencepiece", "sklearn", "tensorflow", "tokenizers", "torchaudio", "torchvision",
    "transformers", "typer",
}  # fmt: skip
WITHOUT_TORCH = [
    "modelwright.configuration_utils",
    "modelwright.file_utils",
    "modelwright.modeling_outputs",
    "modelwright.utils",
    "modelwright.utils.generic",
    "modelwright.utils.import_utils",
    "modelwright.utils.logging",
]


def loaded_after(code: str) -> set[str]:
    """Return the names of the modules in a new process after `code`, but for those that Python starts with."""
    report = "import json; print(json.dumps(sorted(set(sys.modules) - before)))"
    source = str(Path(_public.__file__).parents[1])  # this checkout's, whatever is installed
    script = f"import sys; sys.path.insert(0, {source!r}); before = set(sys.modules)\n{code}\n{report}"
    result = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout))


def packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_the_root_loads_next_to_nothing() -> None:
    modules = loaded_after("import modelwright")
    assert {name for name in modules if name.startswith("modelwright")} == {
        "modelwright",
        "modelwright._public",
        "modelwright.core",
        "modelwright.core.lazy",
        "modelwright.core.version",
    }
    assert packages(modules) - set(sys.stdlib_module_names) == {"modelwright"}


@pytest.mark.parametrize("door", WITHOUT_TORCH)
def test_doors_without_torch(door: str) -> None:
    names = ", ".join(name for names in _public.DOORS[door].values() for name in names)
    modules = loaded_after(f"from {door} import {names}")
    assert packages(modules) & (HEAVY | {"torch", "numpy"}) == set()


@pytest.mark.parametrize("door", sorted(_public.DOORS))
def test_importing_a_door_imports_none_of_its_names(door: str) -> None:
    assert packages(loaded_after(f"import {door}")) - set(sys.stdlib_module_names) == {"modelwright"}


def test_a_config_needs_no_torch() -> None:
    assert "torch" not in packages(loaded_after("import modelwright; modelwright.ReformerConfig().to_json_string()"))


@pytest.mark.parametrize("names", ["ReformerModelWithLMHead", "AutoTokenizer, AutoModelForCausalLM, ReformerModel"])
def test_a_model_loads_torch_and_nothing_heavy_beside_it(names: str) -> None:
    # What torch itself imports is not ours to judge.
    added = loaded_after(f"import torch; before = set(sys.modules); from modelwright import {names}")
    assert packages(added) & HEAVY == set()


FAMILIES = """
import tempfile
import torch
import modelwright as mw
small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 20}
layers = {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
for name, config in {
    "BertForMaskedLM": mw.BertConfig(**small),
    "LlamaForCausalLM": mw.LlamaConfig(**small),
    "GPT2LMHeadModel": mw.GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=20),
    "T5ForConditionalGeneration": mw.T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=20),
    "ProphetNetForConditionalGeneration": mw.ProphetNetConfig(
        hidden_size=8, encoder_ffn_dim=8, decoder_ffn_dim=8, vocab_size=20, **{f"num_{k}": v for k, v in layers.items()}
    ),
    "ReformerModelWithLMHead": mw.ReformerConfig(
        hidden_size=8, attn_layers=["local", "lsh"], num_attention_heads=2, attention_head_size=4, vocab_size=20,
        feed_forward_size=8, axial_pos_shape=[4, 4], axial_pos_embds_dim=[4, 4], max_position_embeddings=16,
        is_decoder=True,
    ),
}.items():
    with tempfile.TemporaryDirectory() as folder:
        getattr(mw, name)(config).save_pretrained(folder)
        model = getattr(mw, name).from_pretrained(folder)
    if name != "ReformerModelWithLMHead":  # its attention is an operator, whose first call imports it
        ids = torch.ones(1, 4, dtype=torch.long)
        model(input_ids=ids, **({"decoder_input_ids": ids} if config.is_encoder_decoder else {}))
"""


def test_loading_and_running_a_model_imports_nothing_of_the_compiler() -> None:
    """Many operations on meta would: the first random values there took longer than all else of a load."""
    added = loaded_after(FAMILIES)
    assert "torch.nn" in added
    assert not {name for name in added if name.startswith(("torch._dynamo", "sympy", "mpmath"))}
