"""Writes what transformers 4.37.2, the last release tested here that has them, finds with diverse groups of beams.

Run from the root with a Python that has that release:
python tools/golden_group_beams.py > tests/parity/group_beams.json
"""

import json
import sys
from typing import Any

import torch

CONFIG = {"vocab_size": 37, "n_positions": 40, "n_embd": 12, "n_layer": 2, "n_head": 2, "bos_token_id": 1,
          "pad_token_id": 36, "eos_token_id": 30}  # fmt: skip
IDS = [[36, 36, 5, 9], [7, 3, 17, 22], [8, 1, 30, 2]]
_COMMON = {"max_new_tokens": 14, "pad_token_id": 36, "eos_token_id": 30, "diversity_penalty": 0.7}
CASES: dict[str, dict[str, Any]] = {
    "two": {**_COMMON, "num_beams": 4, "num_beam_groups": 2, "num_return_sequences": 4},
    "single": {**_COMMON, "num_beams": 3, "num_beam_groups": 3, "num_return_sequences": 3, "diversity_penalty": 4.0},
    "three": {**_COMMON, "num_beams": 6, "num_beam_groups": 3, "num_return_sequences": 2},
    "early": {**_COMMON, "num_beams": 4, "num_beam_groups": 2, "num_return_sequences": 4, "early_stopping": True},
    "never": {**_COMMON, "num_beams": 4, "num_beam_groups": 2, "num_return_sequences": 4, "early_stopping": "never"},
    "long": {**_COMMON, "num_beams": 4, "num_beam_groups": 2, "num_return_sequences": 4, "length_penalty": 2.0},
    "processors": {
        **_COMMON, "num_beams": 4, "num_beam_groups": 2, "num_return_sequences": 4, "min_new_tokens": 5,
        "no_repeat_ngram_size": 2, "repetition_penalty": 1.3,
    },
}  # fmt: skip


def fill(model: torch.nn.Module) -> None:
    """Give every weight a value that is the same on all machines and releases."""
    with torch.no_grad():
        for number, (name, weight) in enumerate(sorted(model.named_parameters())):
            steps = torch.arange(weight.numel(), dtype=torch.float64)
            values = 0.6 * torch.sin(steps * steps * 0.37 + steps * 1.3 + number)
            is_scale = name.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight"))
            weight.copy_((1.0 if is_scale else 0.0) + values.reshape(weight.shape))


def results(model: Any) -> dict[str, Any]:
    """Return ids and scores of each case, as lists."""
    ids = torch.tensor(IDS)
    found = {}
    for name, kwargs in CASES.items():
        out = model.generate(
            ids, attention_mask=(ids != 36).long(), return_dict_in_generate=True, output_scores=True, **kwargs
        )
        found[name] = {"sequences": out.sequences.tolist(), "scores": out.sequences_scores.tolist()}
    return found


if __name__ == "__main__":
    import importlib

    # Not by name: the type checker reads another release.
    transformers: Any = importlib.import_module("transformers")
    assert transformers.__version__ == "4.37.2", transformers.__version__
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**CONFIG)).eval()
    fill(model)
    json.dump(results(model), sys.stdout)
    sys.stdout.write("\n")
