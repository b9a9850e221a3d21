"""Rotary embeddings: what each type computes, both spellings, validation, and frequencies that follow the length."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from modelwright.attention.caches import DynamicCache
from modelwright.attention.rope import ROPE_INIT_FUNCTIONS
from modelwright.attention.rope_settings import rope_settings
from modelwright.attention.rope_validation import rope_config_validation
from modelwright.attention.rotary import RotaryEmbedding, apply_rotary_pos_emb, dynamic_rope_update
from modelwright.core.errors import ConfigError

PARAMETERS = {
    "default": {},
    "linear": {"factor": 2.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
    "longrope": {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "original_max_position_embeddings": 16},
    "llama3": {
        "factor": 8.0,
        "original_max_position_embeddings": 16,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
    "proportional": {"partial_rotary_factor": 0.5},
}


def make(rope_type="default", *, new=False, base=10000.0, **fields):
    fields = {"hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 64, **fields}
    settings = {"rope_type": rope_type, **fields.pop("settings", PARAMETERS[rope_type])}
    if new:
        return SimpleNamespace(rope_parameters={**settings, "rope_theta": base}, **fields)
    return SimpleNamespace(rope_scaling=settings, rope_theta=base, **fields)


def positions(*numbers):
    return torch.tensor([numbers])


@pytest.mark.parametrize("rope_type", PARAMETERS)
def test_every_spelling_gives_the_same_numbers(rope_type):
    compute = ROPE_INIT_FUNCTIONS[rope_type]
    wanted, scale = compute(make(rope_type, base=500.0))
    assert wanted.shape == (8,) and wanted.dtype == torch.float32
    legacy = make(rope_type, base=500.0)
    legacy.rope_scaling = {"type": rope_type, **PARAMETERS[rope_type]}
    nested = make(base=7.0)
    nested.rope_parameters = {
        "full_attention": make(rope_type, new=True, base=500.0).rope_parameters,
        "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
        "nope": None,
    }
    for found in (
        compute(make(rope_type, new=True, base=500.0)),
        compute(legacy),
        compute(nested, layer_type="full_attention"),
        compute(make(rope_type, base=500.0, head_dim=None)),
        compute(make(rope_type, base=500.0, head_dim=16, hidden_size=999)),
    ):
        assert torch.equal(found[0], wanted) and found[1] == scale
    for missing in (None, "nope", "other"):
        with pytest.raises(ConfigError, match=r"per layer type \(full_attention, sliding_attention\), got layer_type="):
            compute(nested, layer_type=missing)


def test_the_formulas():
    default = torch.tensor([10000.0 ** (-2 * i / 16) for i in range(8)])
    close = {"rtol": 1e-5, "atol": 0}
    assert torch.allclose(ROPE_INIT_FUNCTIONS["default"](make())[0], default, **close)
    assert torch.allclose(ROPE_INIT_FUNCTIONS["linear"](make("linear"))[0], default / 2, **close)
    grown = 10000.0 * (2.0 * 100 / 64 - 1.0) ** (16 / 14)
    wanted = torch.tensor([grown ** (-2 * i / 16) for i in range(8)])
    assert torch.allclose(ROPE_INIT_FUNCTIONS["dynamic"](make("dynamic"), seq_len=100)[0], wanted, **close)
    short, scale = ROPE_INIT_FUNCTIONS["longrope"](make("longrope"), seq_len=16)
    long, _ = ROPE_INIT_FUNCTIONS["longrope"](make("longrope"), seq_len=17)
    assert torch.allclose(short, default, **close) and torch.allclose(long, default / 2, **close)
    assert scale == math.sqrt(1 + math.log(64 / 16) / math.log(16))
    part = ROPE_INIT_FUNCTIONS["proportional"](make("proportional"))[0]
    assert torch.allclose(part[:4], default[:4], **close) and part[4:].abs().sum() == 0
    settings = {**PARAMETERS["llama3"], "original_max_position_embeddings": 32}
    llama3 = ROPE_INIT_FUNCTIONS["llama3"](make("llama3", settings=settings))[0]
    assert torch.allclose(llama3[:1], default[:1], **close)  # wavelength 6.3, below 32 / 4
    share = (32 * default[1] / (2 * math.pi) - 1.0) / (4.0 - 1.0)  # wavelength 19.9, between
    assert torch.allclose(llama3[1], (1 - share) * default[1] / 8 + share * default[1], **close)
    assert torch.allclose(llama3[2:], default[2:] / 8, **close)  # wavelength 63 and more, above 32 / 1
    yarn, scale = ROPE_INIT_FUNCTIONS["yarn"](make("yarn"))
    assert scale == 0.1 * math.log(4.0) + 1.0
    assert yarn[0] == default[0] and torch.allclose(yarn[-1], default[-1] / 4)
    explicit = make("yarn", settings={**PARAMETERS["yarn"], "attention_factor": 0.0})
    assert ROPE_INIT_FUNCTIONS["yarn"](explicit)[1] == 0.0


def test_partial_rotary_and_tiny_heads():
    settings = rope_settings(make(partial_rotary_factor=0.25))
    assert (settings.dim, settings.head_dim) == (4, 16)
    tiny = make("dynamic", hidden_size=8)
    assert ROPE_INIT_FUNCTIONS["dynamic"](tiny, seq_len=1000)[0].tolist() == [1.0]


def test_an_unknown_type_lists_the_known_ones(said):
    with pytest.raises(
        KeyError, match="unknown rope_type 'yarm': expected one of default, dynamic, linear, llama3, lon"
    ):
        RotaryEmbedding(make(settings={"rope_type": "yarm"}))
    rope_config_validation(make(settings={"rope_type": "yarm"}))
    assert said() == [f"`rope_scaling`: unknown 'rope_type'='yarm'; known are {', '.join(sorted(PARAMETERS))}"]


@pytest.mark.parametrize(
    ("rope_type", "missing"),
    [
        ("linear", "'factor'"),
        ("dynamic", "'factor'"),
        ("yarn", "'factor'"),
        ("longrope", "'long_factor', 'short_factor'"),
        ("llama3", "'factor', 'high_freq_factor', 'low_freq_factor', 'original_max_position_embeddings'"),
    ],
)
def test_missing_keys_are_a_key_error_that_names_them(rope_type, missing):
    with pytest.raises(KeyError) as caught:
        rope_config_validation(make(settings={"rope_type": rope_type}))
    assert str(caught.value) == f"Missing required keys in `rope_scaling` for 'rope_type'='{rope_type}': {{{missing}}}"
    config = make(settings={})
    config.rope_parameters = {"full_attention": {"rope_type": rope_type}}
    with pytest.raises(KeyError, match=r"in `rope_parameters\['full_attention'\]` for"):
        rope_config_validation(config)
    if rope_type != "yarn":
        with pytest.raises(KeyError, match="Missing required keys in `rope_scaling`"):
            RotaryEmbedding(make(settings={"rope_type": rope_type}))


@pytest.mark.parametrize("rope_type", PARAMETERS)
@pytest.mark.parametrize("new", [False, True])
def test_sound_settings_say_nothing(rope_type, new, said):
    rope_config_validation(make(rope_type, new=new))
    rope_config_validation(SimpleNamespace(rope_scaling=None))
    assert said() == []


@pytest.mark.parametrize(
    ("rope_type", "change", "line"),
    [
        ("linear", {"factor": 2}, "`rope_scaling`'s factor field must be a float >= 1, got 2"),
        ("linear", {"factor": 0.5}, "`rope_scaling`'s factor field must be a float >= 1, got 0.5"),
        ("yarn", {"attention_factor": -1.0}, "`rope_scaling`'s attention_factor field must be a float >= 0, got -1.0"),
        ("yarn", {"beta_fast": 8}, "`rope_scaling`'s beta_fast field must be a float, got 8"),
        (
            "yarn",
            {"beta_fast": 1.0, "beta_slow": 2.0},
            "beta_fast field must be greater than beta_slow, got beta_fast=1.0",
        ),
        ("yarn", {"factor": 3.0}, "factor field 3.0 is not max_position_embeddings / original_max_position_embeddings"),
        ("longrope", {"short_factor": [1.0]}, "`rope_scaling`'s short_factor field must have length 8, got 1"),
        ("longrope", {"long_factor": "x"}, "`rope_scaling`'s long_factor field must be a list of numbers, got 'x'"),
        ("llama3", {"high_freq_factor": 1.0}, "high_freq_factor field must be greater than low_freq_factor"),
        ("llama3", {"original_max_position_embeddings": 64}, "field must be less than max_position_embeddings, got 64"),
        ("llama3", {"original_max_position_embeddings": 2.5}, "field must be an integer, got 2.5"),
        ("proportional", {"partial_rotary_factor": 1.5}, "field must be a number in (0, 1], got 1.5"),
        ("linear", {"foo": 1}, "Unrecognized keys in `rope_scaling` for 'rope_type'='linear': {'foo'}"),
    ],
)
def test_doubtful_values_warn_once(rope_type, change, line, said):
    config = make(rope_type, settings={**PARAMETERS[rope_type], **change})
    rope_config_validation(config)
    rope_config_validation(config)
    assert len(said()) == 1 and line in said()[0]


def test_validation_takes_the_models_own_keys_and_refuses_the_impossible(said):
    rope_config_validation(make("linear", settings={"factor": 2.0, "mine": 1}), ignore_keys={"mine"})
    assert said() == []
    with pytest.raises(ConfigError, match="expected a dict such as"):
        rope_config_validation(SimpleNamespace(rope_scaling="yarn"))
    with pytest.raises(ConfigError, match="turn pairs, got an odd head size of 15"):
        rope_config_validation(make(head_dim=15))


def frequencies(rotary, length, **keywords):
    """The frequencies in use after a call for positions up to `length` tokens."""
    rotary(torch.zeros(1), positions(length - 1), **keywords)
    return rotary.inv_freq.clone()


@pytest.mark.parametrize(("rope_type", "trained"), [("dynamic", 64), ("longrope", 16)])
def test_frequencies_are_a_function_of_the_length_alone(rope_type, trained):
    rotary = RotaryEmbedding(make(rope_type))
    compute = ROPE_INIT_FUNCTIONS[rope_type]
    start = rotary.inv_freq.clone()
    for length in (trained, trained + 1, 150, 90, 3, 90, trained):
        assert torch.equal(frequencies(rotary, length), compute(make(rope_type), seq_len=length)[0])
        assert torch.equal(frequencies(rotary, 1, seq_len=length), compute(make(rope_type), seq_len=length)[0])
    assert torch.equal(frequencies(rotary, 5), start)
    assert not torch.equal(frequencies(rotary, 150), start)


@pytest.mark.parametrize("rope_type", [kind for kind in PARAMETERS if kind not in ("dynamic", "longrope")])
def test_other_types_never_change(rope_type):
    rotary = RotaryEmbedding(make(rope_type))
    start = rotary.inv_freq.clone()
    assert torch.equal(frequencies(rotary, 5000), start)


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_queries_use_the_base_of_the_cached_keys(rope_type):
    rotary = RotaryEmbedding(make(rope_type))
    cache = DynamicCache()
    at_start = frequencies(rotary, 10, past_key_values=cache)
    cache.update(torch.zeros(1, 1, 10, 16), torch.zeros(1, 1, 10, 16), 0)
    assert torch.equal(frequencies(rotary, 200, past_key_values=cache), at_start)
    # Another sequence on the same module in between changes nothing.
    assert not torch.equal(frequencies(rotary, 300), at_start)
    assert torch.equal(frequencies(rotary, 201, past_key_values=cache), at_start)
    cache.reset()
    assert not torch.equal(frequencies(rotary, 200, past_key_values=cache), at_start)


def test_a_known_length_is_not_read_from_the_device():
    class Refusing(torch.Tensor):
        """Position ids whose largest must not be asked for."""

        def max(self, *args, **kwargs):
            raise AssertionError("a host sync")

    rotary = RotaryEmbedding(make("dynamic"))
    ids = positions(80).as_subclass(Refusing)
    rotary(torch.zeros(1), ids, seq_len=81)
    cache = DynamicCache()
    rotary(torch.zeros(1), ids, seq_len=81, past_key_values=cache)
    cache.update(torch.zeros(1, 1, 1, 16), torch.zeros(1, 1, 1, 16), 0)
    rotary(torch.zeros(1), ids, past_key_values=cache)
    with pytest.raises(AssertionError, match="a host sync"):
        rotary(torch.zeros(1), ids)


def test_the_decorator_on_a_module_of_a_4x_file():
    class Rotary(torch.nn.Module):
        def __init__(self, config):
            super().__init__()
            self.config, self.rope_type = config, config.rope_scaling["rope_type"]
            self.max_seq_len_cached = self.original_max_seq_len = config.max_position_embeddings
            self.rope_init_fn = ROPE_INIT_FUNCTIONS[self.rope_type]
            inv_freq, self.attention_scaling = self.rope_init_fn(config, None)
            self.register_buffer("inv_freq", inv_freq, persistent=False)
            self.original_inv_freq = self.inv_freq

        @dynamic_rope_update
        def forward(self, x, position_ids):
            """The 4.x forward."""
            return self.inv_freq

    rotary = Rotary(make("dynamic"))
    start = rotary(torch.zeros(1), positions(9))
    long = rotary(torch.zeros(1), positions(99))
    assert torch.equal(long, ROPE_INIT_FUNCTIONS["dynamic"](make("dynamic"), seq_len=100)[0])
    assert torch.equal(rotary(torch.zeros(1), positions(9)), start) and not torch.equal(start, long)
    assert Rotary.forward.__doc__ == "The 4.x forward."


def test_the_decorator_with_frequencies_per_layer_type():
    class Rotary(torch.nn.Module):
        def __init__(self, config):
            super().__init__()
            self.config, self.rope_type = config, {"a": "dynamic", "b": "default"}
            self.rope_init_fn = {kind: ROPE_INIT_FUNCTIONS[name] for kind, name in self.rope_type.items()}
            self.max_seq_len_cached = self.original_max_seq_len = config.max_position_embeddings
            for kind, compute in self.rope_init_fn.items():
                inv_freq, scaling = compute(config, None, layer_type=kind)
                self.register_buffer(f"{kind}_inv_freq", inv_freq, persistent=False)
                setattr(self, f"{kind}_original_inv_freq", inv_freq)
                setattr(self, f"{kind}_attention_scaling", scaling)

        @dynamic_rope_update
        def forward(self, x, position_ids, layer_type=None):
            return getattr(self, f"{layer_type}_inv_freq")

    config = make()
    config.rope_parameters = {"a": {"rope_type": "dynamic", "factor": 2.0}, "b": {"rope_type": "default"}}
    rotary = Rotary(config)
    still = rotary(torch.zeros(1), positions(99), layer_type="b").clone()
    grown = rotary(torch.zeros(1), positions(99), layer_type="a")
    wanted = ROPE_INIT_FUNCTIONS["dynamic"](config, seq_len=100, layer_type="a")[0]
    assert torch.equal(grown, wanted) and torch.equal(rotary(torch.zeros(1), positions(99), layer_type="b"), still)


def test_rotation_keeps_lengths_and_depends_on_distances():
    rotary = RotaryEmbedding(make(partial_rotary_factor=0.5))
    q, k = torch.randn(2, 1, 1, 1, 16)

    def score(at_q, at_k):
        turned_q, _ = apply_rotary_pos_emb(q, q, *rotary(q, positions(at_q)))
        turned_k, _ = apply_rotary_pos_emb(k, k, *rotary(k, positions(at_k)))
        assert torch.equal(turned_q[..., 8:], q[..., 8:])
        assert torch.allclose(turned_q.norm(), q.norm())
        return (turned_q * turned_k).sum()

    assert torch.allclose(score(7, 3), score(24, 20), atol=1e-5)
    assert not torch.allclose(score(7, 3), score(7, 5), atol=1e-3)
    cos, sin = rotary(q.bfloat16(), positions(0, 1, 2))
    assert cos.dtype == torch.bfloat16 and cos.shape == (1, 3, 8)
    states = torch.randn(1, 3, 2, 16)
    other = apply_rotary_pos_emb(states, states, cos.float(), sin.float(), unsqueeze_dim=2)[0]
    same = apply_rotary_pos_emb(states.transpose(1, 2), states.transpose(1, 2), cos.float(), sin.float())[0]
    assert torch.equal(other, same.transpose(1, 2))


def test_buffers_are_made_again_after_meta():
    rotary = RotaryEmbedding(make("yarn"), device="meta")
    assert rotary.inv_freq.is_meta and rotary.state_dict() == {}
    rotary.to_empty(device="cpu")
    rotary.init_buffers()
    whole = RotaryEmbedding(make("yarn"))
    assert torch.equal(rotary.inv_freq, whole.inv_freq) and torch.equal(rotary.original_inv_freq, whole.inv_freq)


def test_half_precision_leaves_the_frequencies_in_fp32():
    rotary = RotaryEmbedding(make()).to(torch.bfloat16)
    assert torch.equal(rotary.inv_freq, RotaryEmbedding(make()).inv_freq)


GOLDEN = json.loads(Path(__file__).with_name("golden_rope.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "case", GOLDEN["cases"], ids=lambda case: f"{case['rope_parameters']['rope_type']}-{case['seq_len']}"
)
def test_frequencies_of_transformers_5(case):
    config = SimpleNamespace(**GOLDEN["sizes"], rope_parameters=case["rope_parameters"])
    compute = ROPE_INIT_FUNCTIONS[case["rope_parameters"]["rope_type"]]
    inv_freq, scale = compute(config, seq_len=case["seq_len"])
    wanted = torch.tensor([float.fromhex(number) for number in case["inv_freq"]])
    # One bit of room: another CPU may round powers otherwise. To the bit is tested side by side, in tests/parity.
    assert torch.allclose(inv_freq, wanted, rtol=1.2e-7, atol=0) and scale == case["scale"]
