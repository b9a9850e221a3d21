"""What the layers and losses should give, in closed form, in NumPy and fp64; and the numbers that go in."""

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
BATCH, TOKENS, HIDDEN, CLASSES = 3, 4, 6, 5
SUMMARY_TYPES = ("last", "first", "mean", "cls_index")
SUMMARY = {"summary_use_proj": True, "hidden_size": HIDDEN, "num_labels": CLASSES, "summary_proj_to_labels": True}


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.RandomState(seed + sum(shape)).standard_normal(shape).astype("float32")


HIDDEN_STATES = numbers(BATCH, TOKENS, HIDDEN)
TOKEN_LOGITS = numbers(BATCH, TOKENS, CLASSES)
TOKEN_LABELS = np.array([[0, -100, 2, 4], [-100, -100, 1, 1], [3, 3, -100, 0]])
OLD_TOKEN_LABELS = np.where(TOKEN_LABELS == -100, -1, TOKEN_LABELS)
LOGITS = numbers(BATCH, CLASSES, seed=1)
LABELS = np.array([4, 0, 2])
CLS_INDEX = np.array([2, 0, 3])
WEIGHT, BIAS = numbers(HIDDEN, CLASSES, seed=2), numbers(CLASSES, seed=3)
TABLE = numbers(CLASSES, HIDDEN, seed=4)
X = np.linspace(-7, 7, 57, dtype="float32")


def cross_entropy(labels: Array, logits: Array) -> Array:
    """-log softmax(logits)[labels], and 0 for negative labels."""
    logits = logits.astype("float64")
    highest = logits.max(-1, keepdims=True)
    log_sum = np.log(np.exp(logits - highest).sum(-1)) + highest[..., 0]
    picked = np.take_along_axis(logits, np.maximum(labels, 0)[..., None], -1)[..., 0]
    return np.where(labels >= 0, log_sum - picked, 0.0)


def summaries(hidden: Array, cls_index: Array) -> dict[str, Array]:
    return {
        "last": hidden[:, -1],
        "first": hidden[:, 0],
        "mean": hidden.astype("float64").mean(1),
        "cls_index": hidden[np.arange(len(hidden)), cls_index],
    }


def _gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def _gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


ACTIVATIONS = {
    "gelu": _gelu,
    "gelu_10": lambda x: np.clip(_gelu(x), -10, 10),
    "gelu_fast": _gelu_tanh,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "gelu_python": _gelu,
    "laplace": lambda x: 0.5 * (1 + np.vectorize(math.erf)((x - 0.707107) / (0.282095 * math.sqrt(2)))),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "linear": lambda x: x,
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "quick_gelu": lambda x: x * _sigmoid(1.702 * x),
    "relu": lambda x: np.maximum(x, 0),
    "relu2": lambda x: np.maximum(x, 0) ** 2,
    "relu6": lambda x: np.clip(x, 0, 6),
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "swish": lambda x: x * _sigmoid(x),
    "tanh": np.tanh,
}


def expected() -> dict[str, Array]:
    """Return every case's result by its name."""
    counted = TOKEN_LABELS >= 0
    per_token = cross_entropy(TOKEN_LABELS, TOKEN_LOGITS)
    mean = np.array([per_token.sum() / counted.sum()])
    per_sample = cross_entropy(LABELS, LOGITS)
    some = np.array([4, -100, 2])
    regression = (LOGITS[:, 0].astype("float64") - 0.5) ** 2
    results = {
        "causal": mean,
        "causal_legacy": per_token[counted],
        "masked": mean,
        "masked_legacy": per_token[counted],
        "token_classification": mean,
        "token_classification_minus_one": mean,
        "token_classification_legacy": per_token[counted],
        "token_classification_legacy_minus_one": per_token[counted],
        "multiple_choice": per_sample,
        "sequence_classification": per_sample,
        "regression": regression,
        "regression_one_axis": regression,
        "next_sentence": cross_entropy(some, LOGITS),
        "next_sentence_legacy": cross_entropy(some, LOGITS)[[0, 2]],
        "question_answering": (per_sample + cross_entropy(CLS_INDEX, TOKEN_LOGITS[0, :3])) / 2,
        "question_answering_ignored": (cross_entropy(some, LOGITS) + cross_entropy(some, LOGITS)) / 2,
        "conv1d": HIDDEN_STATES.astype("float64") @ WEIGHT + BIAS,
        "conv1d_two_axes": HIDDEN_STATES[0].astype("float64") @ WEIGHT + BIAS,
        "shared_embedding": TABLE[np.maximum(TOKEN_LABELS, 0)],
        "shared_linear": HIDDEN_STATES.astype("float64") @ TABLE.T,
    }
    for name, vector in summaries(HIDDEN_STATES, CLS_INDEX).items():
        results[f"summary_{name}"] = vector
        results[f"summary_{name}_projected"] = np.tanh(vector @ WEIGHT.astype("float64") + BIAS)
    return results | {f"activation_{name}": f(X.astype("float64")) for name, f in ACTIVATIONS.items()}
