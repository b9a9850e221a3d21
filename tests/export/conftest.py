"""Small BERT models with weights that are large enough for errors to show, float and quantized."""

import pytest
import torch

from modelwright.models.bert.configuration_bert import BertConfig
from modelwright.models.bert.modeling_bert import BertModel
from modelwright.quantization import Recipe, calibrate_weights, calibrating, load_ranges, swap

_SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "num_labels": 3,
}


def _enlarge(model):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    return model.eval()


def _calibrate(model, recipe):
    swap(model, recipe)
    with calibrating(model), torch.no_grad():
        model(torch.randint(0, 99, (8, 30)))
    load_ranges(model), calibrate_weights(model, "max")
    return model


@pytest.fixture
def sizes():
    return _SIZES


@pytest.fixture
def enlarge():
    """Give a model weights that are not small."""
    return _enlarge


@pytest.fixture
def calibrate():
    """Quantize and calibrate a model as a recipe says."""
    return _calibrate


@pytest.fixture
def bert():
    torch.manual_seed(0)
    return _enlarge(BertModel(BertConfig(**_SIZES)))


@pytest.fixture
def quantized(bert):
    """A function from a recipe to a calibrated model."""

    def make(recipe=None):
        return _calibrate(bert, recipe or Recipe())

    return make


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 99, (3, 17), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
