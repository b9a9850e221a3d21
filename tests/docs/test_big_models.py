"""The examples of the document on big models and dtypes (spec 001), on a checkpoint made here."""

import pytest
import torch

from modelwright import AutoModel, AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration, T5Model


@pytest.fixture
def t5(tmp_path):
    config = T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=12, num_layers=2, num_heads=2, decoder_start_token_id=0)
    T5ForConditionalGeneration(config).to(torch.float16).save_pretrained(tmp_path)
    return str(tmp_path)


def test_an_empty_shell_that_is_filled_shard_by_shard(t5, caplog):
    t0pp = AutoModelForSeq2SeqLM.from_pretrained(t5, low_cpu_mem_usage=True)
    assert type(t0pp) is T5ForConditionalGeneration
    assert not any(tensor.is_meta for tensor in (*t0pp.parameters(), *t0pp.buffers()))
    assert caplog.text == ""


def test_dtypes_of_a_loaded_and_of_a_new_model(t5):
    assert T5ForConditionalGeneration.from_pretrained(t5).dtype == torch.float32
    model = T5ForConditionalGeneration.from_pretrained(t5, torch_dtype=torch.float16)
    outputs = {name for name, parameter in model.named_parameters() if parameter.dtype == torch.float32}
    assert outputs, "float16 overflows where a feed-forward ends, so that layer stays"
    assert all(name.endswith("wo.weight") for name in outputs)
    assert model.dtype == torch.float16
    assert T5ForConditionalGeneration.from_pretrained(t5, torch_dtype="auto").dtype == torch.float16
    model = AutoModel.from_config(T5Config.from_pretrained(t5))
    assert type(model) is T5Model
    assert model.dtype == torch.float32
