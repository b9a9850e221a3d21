"""Tokenizers give the arrays of each backend; here, because TensorFlow and JAX are installed for these tests only."""

import os

import keras
import numpy as np

from modelwright.core.errors import InputError
from modelwright.tokenization.batch_encoding import BatchEncoding
from modelwright.tokenization.byte_tokenizer import ByteTokenizer

KIND = {"torch": "pt", "tensorflow": "tf", "jax": "jax"}[os.environ["KERAS_BACKEND"]]
IDS = "int64" if KIND == "pt" else "int32"
TOKENIZER = ByteTokenizer()


def test_a_batch_becomes_arrays_of_the_backend():
    encoded = TOKENIZER(["A", "BC"], padding=True, return_tensors=KIND)
    for name, rows in (("input_ids", [[67, 0], [68, 69]]), ("attention_mask", [[1, 0], [1, 1]])):
        array = encoded[name]
        assert keras.ops.is_tensor(array)
        assert keras.backend.standardize_dtype(array.dtype) == IDS
        assert np.asarray(array).tolist() == rows
    assert TOKENIZER("", return_tensors=KIND).input_ids.shape == (1, 0)
    assert keras.backend.standardize_dtype(TOKENIZER("", return_tensors=KIND).input_ids.dtype) == IDS
    try:
        TOKENIZER(["A", "BC"], return_tensors=KIND)
    except InputError as error:
        assert "rows of 1 to 2 values. Pass padding=True" in str(error)  # noqa: PT017
    else:
        raise AssertionError


def test_floats_and_arrays():
    fields = {"weights": [[0.5, 1.0]], "array": np.array([[1, 2]])}
    arrays = BatchEncoding(fields, tensor_type=KIND)
    assert keras.backend.standardize_dtype(arrays["weights"].dtype) == "float32"
    assert np.asarray(arrays["array"]).tolist() == [[1, 2]]


def test_arrays_of_the_backend_are_taken():
    ids = TOKENIZER(["AB", "CD"], return_tensors=KIND).input_ids
    assert TOKENIZER.decode(ids[0]) == "AB"
    assert TOKENIZER.batch_decode(ids) == ["AB", "CD"]
    assert TOKENIZER.convert_ids_to_tokens(ids[1]) == ["C", "D"]
    padded = TOKENIZER.pad({"input_ids": ids}, padding="max_length", max_length=3, return_tensors=KIND)
    assert np.asarray(padded.input_ids).tolist() == [[67, 68, 0], [69, 70, 0]]
