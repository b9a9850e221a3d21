"""resize_token_embeddings against transformers 4.57.1: what is kept, cut, padded and noted, and where new rows lie."""

import pytest
import torch

pytestmark = pytest.mark.parity

CONFIGS = {
    "GPT2LMHeadModel": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16},
    "LlamaForCausalLM": {
        "hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
        "max_position_embeddings": 16, "pad_token_id": 39,
    },
    "ReformerModelWithLMHead": {
        "attention_head_size": 8, "attn_layers": ["local"], "axial_pos_embds": False, "feed_forward_size": 32,
        "hidden_size": 16, "is_decoder": True, "max_position_embeddings": 64, "num_attention_heads": 2,
    },
    "BertForMaskedLM": {
        "hidden_size": 16, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
        "max_position_embeddings": 16,
    },
    "T5ForConditionalGeneration": {
        "d_model": 16, "d_kv": 8, "d_ff": 12, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0,
    },
}  # fmt: skip


@pytest.fixture(params=CONFIGS)
def sides(request):
    import transformers

    import modelwright

    name = request.param
    torch.manual_seed(0)
    stem = next(stem for stem in ("Bert", "GPT2", "Llama", "Reformer", "T5") if name.startswith(stem))
    config = {**CONFIGS[name], "vocab_size": 40, "initializer_range": 0.3, "tie_word_embeddings": False}
    theirs = getattr(transformers, name)(getattr(transformers, f"{stem}Config")(**config))
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.dim() == 1:
                parameter.normal_()
    mine = getattr(modelwright, name)(getattr(modelwright, f"{stem}Config")(**config))
    mine.load_state_dict(theirs.state_dict(), strict=False)
    return theirs.eval(), mine.eval()


@pytest.mark.parametrize(
    "arguments",
    [(50,), (30,), (None, 64), (41, 8), (33, 16), (None, None), (40,)],
    ids=["grow", "shrink", "pad", "grow-pad", "shrink-pad", "nothing", "same"],
)
def test_the_same_sizes_rows_and_scores(sides, arguments):
    theirs, mine = sides
    old = mine.get_input_embeddings().num_embeddings
    for model in sides:
        model.resize_token_embeddings(*arguments)
    size = theirs.get_input_embeddings().num_embeddings
    assert mine.get_input_embeddings().num_embeddings == mine.config.vocab_size == theirs.config.vocab_size == size
    assert mine.get_input_embeddings().padding_idx == theirs.get_input_embeddings().padding_idx
    expected = theirs.state_dict()
    for name, tensor in mine.state_dict().items():
        kept = min(old, size) if tensor.shape != expected[name].shape or len(tensor) == size else len(tensor)
        assert tensor.shape == expected[name].shape, name
        assert torch.equal(tensor[:kept], expected[name][:kept]), name
        torch.testing.assert_close(tensor[kept:], expected[name][kept:], rtol=0, atol=1e-3, msg=name)
    ids = torch.randint(0, min(old, size), (2, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scores = [
            model(ids, labels=ids).logits if model.config.is_encoder_decoder else model(ids).logits for model in sides
        ]
        torch.testing.assert_close(*scores, rtol=1e-3, atol=1e-2)
