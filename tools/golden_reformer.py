"""Write a tiny Reformer checkpoint as another release of transformers saves it, and what that release computes from it.

Run from the root, once with each peer's Python:
python tools/golden_reformer.py
It makes tests/models/reformer/golden/VERSION. 4.37.2 saves a pickle, as most old checkpoints are; 5.23.0 saves
safetensors.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "models" / "reformer" / "golden"
PICKLED = ("4.37.2",)
CONFIG = {
    "attention_head_size": 4, "attn_layers": ["local", "lsh"], "axial_pos_embds_dim": [4, 4], "axial_pos_shape": [4, 8],
    "feed_forward_size": 12, "hash_seed": 5, "hidden_size": 8, "is_decoder": True, "local_attn_chunk_length": 4,
    "lsh_attn_chunk_length": 4, "max_position_embeddings": 32, "num_attention_heads": 2, "num_buckets": [2, 2],
    "num_hashes": 2, "vocab_size": 20, "bos_token_id": 1,
}  # fmt: skip
IDS = [[3 + (7 * row + 11 * place + place * place) % 17 for place in range(32)] for row in range(2)]


def fill(model: torch.nn.Module) -> None:
    """Give every weight a value that is the same on all machines and releases; all of them matter."""
    with torch.no_grad():
        for number, (name, weight) in enumerate(sorted(model.named_parameters())):
            steps = torch.arange(weight.numel(), dtype=torch.float64)
            values = 0.6 * torch.sin(steps * steps * 0.37 + steps * 1.3 + number)
            weight.copy_((1.0 if name.endswith("norm.weight") else 0.0) + values.reshape(weight.shape))


def main() -> None:
    """Save the model and its logits in a folder with the release's name."""
    # Not by name: the type checker reads another release.
    transformers: Any = importlib.import_module("transformers")
    version = transformers.__version__
    model = transformers.ReformerModelWithLMHead(transformers.ReformerConfig(**CONFIG)).eval()
    fill(model)
    for name, buffer in model.named_buffers():
        if "self_mask_value_float32" in name:
            # -1e5 + log(num_hashes) is no fp32 number, and the rounding shows; -1e3 is as far below every real score.
            buffer.fill_(-1e3)
    with torch.no_grad():
        logits = model(torch.tensor(IDS), use_cache=False).logits
        bias = model.lm_head.bias.clone()
        model.lm_head.bias.zero_()
        applied = not torch.equal(model(torch.tensor(IDS), use_cache=False).logits, logits)
        model.lm_head.bias.copy_(bias)
    folder = FOLDER / version
    model.save_pretrained(folder, safe_serialization=version not in PICKLED)
    # 5.23.0 loads the bias of the scores and does not add it.
    scores = logits if applied else logits + bias
    rounded = [[[round(score, 5) for score in token] for token in row] for row in scores.tolist()]
    expected = {"ids": IDS, "logits": rounded, "bias_was_applied": applied}
    (folder / "expected.json").write_text(json.dumps(expected) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
