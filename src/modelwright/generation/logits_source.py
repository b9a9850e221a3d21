"""Processors that look at the source: the ids that the encoder reads, or the prompt of a decoder.

Each takes input_ids [rows, tokens so far] and scores [rows, vocabulary] (float32 logits) and returns new scores; the
rows of one item of the source stand together.
"""

from torch import Tensor

from modelwright.core.errors import InputError
from modelwright.generation.logits_process import LogitsProcessor, check_ngram_size, forbid_ngrams, penalised


class EncoderRepetitionPenaltyLogitsProcessor(LogitsProcessor):
    """Make the tokens of the source likelier (`penalty` above 1, against hallucination) or less likely (below 1).

    encoder_input_ids: [items, tokens]. Raises InputError for a penalty that is not above 0.
    """

    def __init__(self, penalty: float, encoder_input_ids: Tensor) -> None:
        if not (isinstance(penalty, (int, float)) and penalty > 0):
            raise InputError(f"EncoderRepetitionPenaltyLogitsProcessor: expected a penalty above 0, got {penalty!r}.")
        self.penalty, self.encoder_input_ids = 1 / penalty, encoder_input_ids

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        """Return the scores with those of the source's tokens changed, each once."""
        return penalised(scores, _for_rows(self.encoder_input_ids, scores), self.penalty)


class EncoderNoRepeatNGramLogitsProcessor(LogitsProcessor):
    """Forbid every token that would complete an n-gram of the source.

    encoder_input_ids: [items, tokens], or [tokens] of one item. Raises InputError for a size below 1.
    """

    def __init__(self, encoder_ngram_size: int, encoder_input_ids: Tensor) -> None:
        self.ngram_size = check_ngram_size("EncoderNoRepeatNGramLogitsProcessor", encoder_ngram_size)
        self.encoder_input_ids = encoder_input_ids[None] if encoder_input_ids.ndim == 1 else encoder_input_ids

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the scores with the forbidden tokens at minus infinity."""
        return forbid_ngrams(_for_rows(self.encoder_input_ids, scores), input_ids, scores, self.ngram_size)


def _for_rows(source: Tensor, scores: Tensor) -> Tensor:
    # One item may have several rows, of beams or of sampled answers.
    return source.repeat_interleave(scores.shape[0] // source.shape[0], dim=0)
