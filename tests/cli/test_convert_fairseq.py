"""`convert --from fairseq-prophetnet`: a checkpoint in fairseq's layout becomes the model that it was made of."""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modelwright import AutoTokenizer, ProphetNetConfig, ProphetNetForConditionalGeneration

Run = Callable[..., Any]
BACK = (
    ("self_attn.relative_pos_embeddings", "ngram_self_attn.relative_linear"), ("cross_attn", "encoder_attn"),
    (r"feed_forward\.intermediate", "fc1"), (r"feed_forward\.output", "fc2"),
    ("feed_forward_layer_norm", "final_layer_norm"), ("word_embeddings", "embed_tokens"),
    ("embeddings_layer_norm", "emb_layer_norm"), ("ngram_embeddings", "ngram_input_embed"),
    ("position_embeddings", "embed_positions"), (r"decoder(.*[.\d])\bself_attn\.", r"decoder\1ngram_self_attn."),
)  # fmt: skip


def fairseq_of(model: ProphetNetForConditionalGeneration, joined: bool) -> dict[str, torch.Tensor]:
    """Return the weights by fairseq's names, as its older (joined) or newer attention has them."""
    state: dict[str, Any] = {"encoder.version": torch.tensor([3.0])}
    for name, value in model.prophetnet.state_dict().items():
        if name == "word_embeddings.weight":
            continue
        new = name
        for pattern, replacement in BACK:
            new = re.sub(pattern, replacement, new)
        part = re.fullmatch(r"(.*\.)(query|key|value)_proj\.(weight|bias)", new)
        if part and joined:
            state.setdefault(f"{part[1]}in_proj_{part[3]}", {})[part[2]] = value
        elif part:
            state[f"{part[1]}{part[2][0]}_proj.{part[3]}"] = value
        elif new == "decoder.embed_positions.weight":
            state[new] = torch.cat([value, torch.randn(1, value.shape[1])])
        else:
            state[new] = value
    for name, value in state.items():
        if isinstance(value, dict):
            state[name] = torch.cat([value[part] for part in ("query", "key", "value")])
    return state


@pytest.fixture(scope="module")
def model() -> ProphetNetForConditionalGeneration:
    torch.manual_seed(0)
    config = ProphetNetConfig(
        vocab_size=30, hidden_size=16, encoder_ffn_dim=24, decoder_ffn_dim=20, num_encoder_layers=2,
        num_decoder_layers=3, num_encoder_attention_heads=4, num_decoder_attention_heads=2, num_buckets=8,
        relative_max_distance=12, max_position_embeddings=21, init_std=0.3, eos_token_id=3, decoder_start_token_id=3,
    )  # fmt: skip
    return ProphetNetForConditionalGeneration(config).eval()


ARGUMENTS = argparse.Namespace(
    encoder_attention_heads=4, decoder_attention_heads=2, num_buckets=8, relative_max_distance=12, dropout=0.25,
    activation_fn="gelu", label_smoothing=0.1,
)  # fmt: skip


@pytest.mark.parametrize("joined", [True, False])
def test_the_model_comes_back(
    run: Run, model: ProphetNetForConditionalGeneration, tmp_path: Path, joined: bool
) -> None:
    weights = fairseq_of(model, joined)
    assert ("decoder.layers.0.ngram_self_attn.in_proj_weight" in weights) is joined
    torch.save({"model": weights, "args": ARGUMENTS, "extra_state": {"epoch": 3}}, tmp_path / "model.pt")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[X_SEP]", *(f"w{n}" for n in range(24))]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    out = tmp_path / "out"
    found = run("convert", tmp_path / "model.pt", out, "--from", "fairseq-prophetnet", "--json")
    assert "model.safetensors" in json.loads(found.stdout)["files"]
    loaded = ProphetNetForConditionalGeneration.from_pretrained(out, strict=True)
    config = loaded.config
    assert (config.num_encoder_attention_heads, config.num_decoder_attention_heads, config.dropout) == (4, 2, 0.25)
    assert (config.max_position_embeddings, config.relative_bias_layout) == (21, "paper")
    assert (config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (0, 3, 3)
    ids, labels = torch.randint(5, 30, (2, 9)), torch.randint(5, 30, (2, 7))
    for left, right in zip(loaded(ids, labels=labels)[:2], model(ids, labels=labels)[:2], strict=True):
        torch.testing.assert_close(left, right)
    assert AutoTokenizer.from_pretrained(out)("w0 w3").input_ids == [6, 9, 3]


class Other:
    """Something that a pickle may ask for and that is no weight."""


def test_bad_checkpoints_are_refused(run: Run, model: ProphetNetForConditionalGeneration, tmp_path: Path) -> None:
    path, weights = tmp_path / "model.pt", fairseq_of(model, joined=True)

    def refusal(*options: Any, **content: Any) -> str:
        torch.save(content, path)
        result = run("convert", path, tmp_path / "out", "--from", "fairseq-prophetnet", *options)
        assert result.exit_code
        assert not (tmp_path / "out").exists()
        return " ".join(result.output.split())

    assert "without running its code" in refusal(model=weights, args=Other())
    assert 'under "model"' in refusal(weights=weights)
    del weights["encoder.layers.1.fc2.bias"]
    weights["decoder.odd"] = torch.zeros(2)
    text = refusal(model=weights, args=ARGUMENTS)
    assert "missing: prophetnet.encoder.layers.1.feed_forward.output.bias" in text
    assert "not of a ProphetNet: prophetnet.decoder.odd" in text
    path.write_bytes(b"junk" * 10)
    assert "not a fairseq checkpoint" in run("convert", path, tmp_path / "out", "--from", "fairseq-prophetnet").output
    assert "--variant does not go with --from" in refusal("--variant", "fp16", model=weights)
