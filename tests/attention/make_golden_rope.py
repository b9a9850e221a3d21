"""Write golden_rope.json: frequencies of transformers 5, whose spelling and `proportional` type 4.57 does not have.

PYTHON_WITH_TRANSFORMERS_5 tests/attention/make_golden_rope.py
"""

import json
from pathlib import Path

LONG = {"short_factor": [1 + 0.1 * i for i in range(8)], "long_factor": [2 + 0.3 * i for i in range(8)]}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
PARAMETERS = [
    {"rope_type": "linear", "factor": 2.5},
    {"rope_type": "dynamic", "factor": 3.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "truncate": False},
    {"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 512, **LONG},
    {"rope_type": "llama3", "original_max_position_embeddings": 512, **LLAMA3},
    {"rope_type": "proportional", "partial_rotary_factor": 0.25},
    {"rope_type": "proportional", "partial_rotary_factor": 0.5, "factor": 2.0},
    {"rope_type": "linear", "factor": 2.5, "partial_rotary_factor": 0.5},
]
SIZES = {"hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 2048}


def main() -> None:
    """Write the file beside this one."""
    import transformers
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    cases = []
    for parameters in PARAMETERS:
        for length in (None, 600, 3000):
            settings = {"rope_theta": 500000.0, **parameters}
            config = transformers.LlamaConfig(**SIZES, rope_parameters=dict(settings))
            inv_freq, scale = ROPE_INIT_FUNCTIONS[settings["rope_type"]](config, "cpu", seq_len=length)
            numbers = [value.hex() for value in inv_freq.tolist()]
            cases.append({"rope_parameters": settings, "seq_len": length, "inv_freq": numbers, "scale": scale})
    golden = {
        "peer": f"transformers {transformers.__version__}",
        "command": "python tests/attention/make_golden_rope.py",
        "sizes": SIZES,
        "cases": cases,
    }
    Path(__file__).with_name("golden_rope.json").write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
