import copy
import pickle

import numpy as np
import pytest
import torch

from modelwright.core.errors import InputError
from modelwright.tokenization.batch_encoding import BatchEncoding
from modelwright.tokenization.byte_tokenizer import ByteTokenizer


def test_items_are_attributes():
    batch = BatchEncoding({"input_ids": [1, 2], "labels": [3]})
    assert batch.input_ids == batch["input_ids"] == [1, 2]
    assert (lambda **fields: fields)(**batch) == {"input_ids": [1, 2], "labels": [3]}
    assert "labels" in dir(batch)
    with pytest.raises(AttributeError, match="no field 'label'. Did you mean 'labels'"):
        _ = batch.label
    assert not hasattr(batch, "__array__")


def test_convert_to_tensors():
    batch = BatchEncoding({"input_ids": [[1, 2]], "score": [[0.5]], "flag": [[True]]}).convert_to_tensors("pt")
    assert [batch[name].dtype for name in batch] == [torch.int64, torch.float32, torch.bool]
    assert isinstance(batch.convert_to_tensors("np").input_ids, np.ndarray)
    assert BatchEncoding({"a": [1]}, tensor_type="np", prepend_batch_axis=True).a.shape == (1, 1)
    assert BatchEncoding({"a": np.array([1], dtype=np.int32)}, tensor_type="pt").a.dtype == torch.int64
    with pytest.raises(InputError, match="'name' cannot become a tensor: expected numbers, got str"):
        BatchEncoding({"name": ["x"]}).convert_to_tensors("np")


def test_to_moves_tensors_and_leaves_the_rest(caplog):
    batch = BatchEncoding({"a": torch.ones(2), "b": "text"})
    assert batch.to("meta") is batch
    assert batch.a.device.type == "meta"
    assert batch.b == "text"
    BatchEncoding({"a": [1]}).to("cpu")
    assert "it holds no torch tensor" in caplog.text


def test_tokens_of_a_row():
    tokenizer = ByteTokenizer()
    for kwargs in ({}, {"return_tensors": "pt"}, {"return_tensors": "np"}):
        assert tokenizer(["ab", "cd"], **kwargs).tokens(1) == ["c", "d"]
        assert tokenizer("ab", **kwargs).tokens() == ["a", "b"]
    assert tokenizer(["a", "cd"], padding=True).tokens() == ["a", "<pad>"]
    with pytest.raises(InputError, match="expected a row below 2, got 2"):
        tokenizer(["ab", "cd"]).tokens(2)
    with pytest.raises(InputError, match="needs a tokenizer"):
        BatchEncoding({"input_ids": [1]}).tokens()


def test_copies_and_pickles_hold_the_fields_only():
    batch = ByteTokenizer()("ab")
    for other in (copy.copy(batch), copy.deepcopy(batch), pickle.loads(pickle.dumps(batch)), batch.copy()):
        assert dict(other) == dict(batch)
        assert other is not batch
    assert b"Tokenizer" not in pickle.dumps(batch)
