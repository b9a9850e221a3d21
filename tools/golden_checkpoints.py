"""Writes small checkpoints with a version of transformers, or says what that version reads in others.

    .peers/transformers-4.37/bin/python tools/golden_checkpoints.py write tests/parity/checkpoints/4.37.2
    .peers/transformers-5/bin/python tools/golden_checkpoints.py write tests/parity/checkpoints/5.23.0
    PYTHON tools/golden_checkpoints.py read FOLDER...

A folder per model class and layout ("single", "sharded", "bin"); `digests.json` has, by class, the SHA-256 of every
tensor of the state dict as the writer had it in memory. `read` prints the same of what it loads, by folder, after
making sure that nothing was missing or left over. The interpreter needs transformers only.
"""

import hashlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

SMALL = {"vocab_size": 12, "hidden_size": 8, "num_attention_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "BertForMaskedLM": {**SMALL, "num_hidden_layers": 2, "intermediate_size": 8, "max_position_embeddings": 8},
    "LlamaForCausalLM": {**SMALL, "num_hidden_layers": 2, "intermediate_size": 8, "num_key_value_heads": 1},
    "GPT2LMHeadModel": {"vocab_size": 12, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 8, "eos_token_id": 2},
    "T5ForConditionalGeneration": {
        "vocab_size": 12, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2,
    },
    "ReformerModelWithLMHead": {
        **SMALL, "attn_layers": ["local", "lsh"], "attention_head_size": 4, "feed_forward_size": 8, "is_decoder": True,
        "axial_pos_shape": [4, 4], "axial_pos_embds_dim": [4, 4], "max_position_embeddings": 16, "hash_seed": 0,
        "num_buckets": 2,
    },
    "ProphetNetForConditionalGeneration": {
        "vocab_size": 12, "hidden_size": 8, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "num_encoder_layers": 1,
        "num_decoder_layers": 1, "num_encoder_attention_heads": 2, "num_decoder_attention_heads": 2,
        "max_position_embeddings": 16,
    },
}  # fmt: skip
LAYOUTS: dict[str, dict[str, Any]] = {
    "single": {},
    "sharded": {"max_shard_size": "2KB"},
    "bin": {"safe_serialization": False},
}


def digests(model: Any) -> dict[str, str]:
    """Return {name: SHA-256 of dtype, shape and bytes}."""
    found = {}
    for name, tensor in model.state_dict().items():
        head = f"{tensor.dtype} {list(tensor.shape)} ".encode()
        found[name] = hashlib.sha256(head + bytes(tensor.contiguous().view(torch.uint8).flatten().tolist())).hexdigest()
    return found


def write(root: Path) -> None:
    """Write every class in every layout that this version can write."""
    found = {}
    for name, settings in CONFIGS.items():
        model_class = getattr(transformers, name)
        torch.manual_seed(0)
        model = model_class(model_class.config_class(**settings)).eval()
        found[name] = digests(model)
        for layout, options in LAYOUTS.items():
            if layout == "bin" and transformers.__version__.startswith("5."):
                continue  # it writes safetensors only
            model.save_pretrained(root / name / layout, **options)
            (root / name / layout / "generation_config.json").unlink(missing_ok=True)
    (root / "digests.json").write_text(json.dumps(found, indent=1) + "\n")


def read(folders: list[str]) -> None:
    """Print what is loaded from each folder by the class that its config names."""
    found = {}
    for folder in folders:
        name = json.loads((Path(folder) / "config.json").read_text())["architectures"][0]
        model, info = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
        assert not any(info.values()), (folder, info)
        found[folder] = digests(model)
    print(json.dumps(found))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    else:
        read(sys.argv[2:])
