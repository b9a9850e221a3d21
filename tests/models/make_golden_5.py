"""Write golden_5.json: logits, gradients and greedy tokens of transformers 5's GPT-2, Llama and Mistral.

PYTHON_WITH_TRANSFORMERS_5 tests/models/make_golden_5.py

5.x cannot be imported beside 4.57, so these are recorded. A weight is a function of its place (`fill`), so the file
holds none; of each gradient it holds two numbers, its norm and its product with a fixed direction.
"""

import json
from pathlib import Path

LLAMA = {
    "vocab_size": 26, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
GPT2 = {
    "vocab_size": 26, "n_positions": 48, "n_embd": 16, "n_layer": 2, "n_head": 4, "bos_token_id": 1,
    "eos_token_id": None, "pad_token_id": 0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0,
}  # fmt: skip
FACTORS = {"short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [2.0, 3.0, 4.0, 5.0]}
LOW_HIGH = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
ROPES = {
    "default": {},
    "linear": {"factor": 2.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 2.0, "original_max_position_embeddings": 8},
    "longrope": {"factor": 2.0, "original_max_position_embeddings": 8, **FACTORS},
    "llama3": {"factor": 2.0, "original_max_position_embeddings": 8, **LOW_HIGH},
    "proportional": {"partial_rotary_factor": 0.5, "factor": 2.0},
}
PADDED = [[0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 9]
PACKED = [[0, 1, 2, 3, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 5, 0, 1, 2]]


def ids(rows, length):
    """Ids from 3 to 25 that look like nothing."""
    return [[3 + (7 * row + 11 * place + place * place) % 23 for place in range(length)] for row in range(rows)]


def cases():
    """Yield name, classes of theirs and ours, config, and the inputs of one call."""
    short, long = {"input_ids": ids(2, 9)}, {"input_ids": ids(2, 20)}
    llama, gpt2 = ("LlamaForCausalLM",) * 2, ("GPT2LMHeadModel",) * 2
    for kind, settings in ROPES.items():
        rope = {"rope_parameters": {"rope_type": kind, "rope_theta": 1000.0, **settings}}
        yield f"llama, {kind}, short", llama, {**LLAMA, **rope}, short
        # With a cache 5.x rotates new tokens by another base than the cached ones once a sequence outgrows the model.
        call = {**long, "use_cache": False} if kind == "dynamic" else long
        yield f"llama, {kind}, long", llama, {**LLAMA, **rope}, call
    for heads in (1, 4):
        yield f"llama, {heads} key heads", llama, {**LLAMA, "num_key_value_heads": heads}, short
    odd = {"head_dim": 6, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}
    yield "llama, head size, biases, tied", llama, {**LLAMA, **odd}, short
    yield "llama, left padding", llama, LLAMA, {**short, "attention_mask": PADDED}
    yield "llama, packed", llama, LLAMA, {**short, "position_ids": PACKED, "use_cache": False}
    window = {**LLAMA, "sliding_window": 4, "head_dim": 8}
    yield "mistral, window of 4", ("MistralForCausalLM", "LlamaForCausalLM"), window, short
    yield "gpt2", gpt2, GPT2, short
    yield "gpt2, scaled by layer, upcast", gpt2, {
        **GPT2, "scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True
    }, short  # fmt: skip
    positions = [[max(place - row.index(1), 0) for place in range(9)] for row in PADDED]
    yield "gpt2, left padding", gpt2, GPT2, {**short, "attention_mask": PADDED, "position_ids": positions}


def chirp(count, start):
    """Return numbers in [-1, 1] without a pattern that a matrix of them would show."""
    import torch

    place = torch.arange(count, dtype=torch.float64)
    return torch.sin(0.37 * place * place + 1.3 * place + start)


def fill(model):
    """Set every parameter: number i in the order of names to a chirp that starts at i; vectors are around 1."""
    import torch

    with torch.no_grad():
        for index, (_, parameter) in enumerate(sorted(model.named_parameters())):
            values = 0.35 * chirp(parameter.numel(), index).view(parameter.shape)
            parameter.copy_(values + (1 if parameter.dim() == 1 else 0))
    return model.eval()


def measure(model, call):
    """Return the logits, two numbers of each gradient, and the greedy tokens."""
    import torch

    tensors = {name: torch.tensor(value) if isinstance(value, list) else value for name, value in call.items()}
    labels = tensors["input_ids"].clone()
    if "attention_mask" in tensors:
        # Neither padding counts, nor the token behind it: what a padded query sees is nobody's promise.
        labels[:, 1:][tensors["attention_mask"][:, :-1] == 0] = -100
    output = model(**tensors, labels=labels)
    output.loss.backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad.double().flatten()
        gradients[name] = [gradient.norm().item(), (gradient @ chirp(gradient.numel(), 0)).item()]
    prompt = {name: value for name, value in tensors.items() if name in ("input_ids", "attention_mask")}
    prompt.setdefault("attention_mask", torch.ones_like(prompt["input_ids"]))
    tokens = model.generate(**prompt, max_new_tokens=10, do_sample=False, use_cache=call.get("use_cache", True))
    return {"logits": output.logits.tolist(), "gradients": gradients, "tokens": tokens.tolist()}


def rounded(value):
    """Return the numbers with six digits."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def main():
    """Write the file beside this one."""
    import transformers

    recorded = []
    for name, (theirs, ours), config, call in cases():
        model_class = getattr(transformers, theirs)
        model = fill(model_class(model_class.config_class(**config, attn_implementation="eager")))
        case = {"name": name, "class": ours, "config": config, "call": call, **rounded(measure(model, call))}
        recorded.append(case)
    golden = {
        "peer": f"transformers {transformers.__version__}",
        "command": "python tests/models/make_golden_5.py",
        "cases": recorded,
    }
    lines = json.dumps(golden, separators=(",", ":")).replace('{"name"', '\n{"name"')
    Path(__file__).with_name("golden_5.json").write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
