"""The loop of greedy search and of sampling: run the model and choose a token for each row until all are finished."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelwright.core.errors import InputError
from modelwright.generation.configuration import GenerationConfig
from modelwright.generation.kept import Kept
from modelwright.generation.logits_process import LogitsProcessorList
from modelwright.generation.outputs import GenerateOutput
from modelwright.generation.protocol import GenerativeModel, call_parameters, is_encoder_decoder
from modelwright.generation.stopping_criteria import StoppingCriteriaList


@dataclass
class Decoding:
    """What one run of a loop needs beside the prompt; `longest` is the most tokens of a row, prompt included."""

    settings: GenerationConfig
    processors: LogitsProcessorList
    criteria: StoppingCriteriaList
    pad_id: int
    longest: int
    streamer: Any = None
    generator: torch.Generator | None = None


class Rows:
    """The rows of a run: their ids so far [batch, tokens], which of them go on, and what is kept of each step."""

    def __init__(self, input_ids: Tensor, run: Decoding, *, encoder_decoder: bool) -> None:
        self.ids, self.kept = input_ids, Kept(run.settings, encoder_decoder=encoder_decoder)
        self._run = run
        self._unfinished = torch.ones(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
        if run.streamer is not None:
            run.streamer.put(input_ids.cpu())

    @property
    def go_on(self) -> bool:
        """Whether a row is unfinished."""
        return bool(self._unfinished.any())

    def add(self, logits: Tensor, outputs: Any) -> Tensor:
        """Choose each row's next token by its logits [batch, vocabulary], and return the tokens [batch]."""
        run = self._run
        # A copy if processors may write on them, or they are kept: they belong to the model, which may use their memory
        # again, and are a part of the logits of a whole prefix, which can go.
        copies = bool(run.processors) or self.kept.of_logits
        logits = logits.to(device=self.ids.device, dtype=torch.float32, copy=copies)
        scores = run.processors(self.ids, logits, may_write=self.kept.logits is None)
        self.kept.add(logits, scores, outputs)
        chosen = self.or_pad(_choose(scores, run))
        self.ids = torch.cat([self.ids, chosen[:, None]], dim=-1)
        if run.streamer is not None:
            run.streamer.put(chosen.cpu())
        self._unfinished = self._unfinished & ~run.criteria(self.ids, self.kept.scores)
        return chosen

    def or_pad(self, tokens: Tensor) -> Tensor:
        """Return the tokens [batch], in finished rows the pad id."""
        return torch.where(self._unfinished, tokens, self._run.pad_id)

    def result(self, model_kwargs: dict[str, Any]) -> Tensor | GenerateOutput:
        """End the stream and return the ids, or those in a ModelOutput with what was kept."""
        if self._run.streamer is not None:
            self._run.streamer.end()
        if not self._run.settings.return_dict_in_generate:
            return self.ids
        return self.kept.result(self.ids, model_kwargs, None)


def decode(
    model: GenerativeModel, input_ids: Tensor, model_kwargs: dict[str, Any], run: Decoding
) -> Tensor | GenerateOutput:
    """Return the prompts [batch, tokens] with what the model adds to them, or that in a ModelOutput with more."""
    two_parts = is_encoder_decoder(model)
    rows, flags = Rows(input_ids, run, encoder_decoder=two_parts), call_flags(model, run.settings)
    while rows.go_on:
        inputs = {**model.prepare_inputs_for_generation(rows.ids, **model_kwargs), **flags}
        outputs = model(**inputs)
        model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs, two_parts)
        rows.add(model._next_token_logits(outputs, inputs), outputs)
        del outputs
    return rows.result(model_kwargs)


def _choose(scores: Tensor, run: Decoding) -> Tensor:
    """Return one id for each row, [batch]: the likeliest, or one drawn from the softmax of the scores."""
    if not run.settings.do_sample:
        return scores.argmax(dim=-1)
    return drawn(scores, 1, run.generator).squeeze(1)


def drawn(scores: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Return `count` different places of each row [rows, count], drawn from the softmax of the scores.

    Raises InputError where the scores are no probabilities (on the CPU; elsewhere torch says it, later).
    """
    try:
        return torch.multinomial(scores.softmax(dim=-1), num_samples=count, generator=generator)
    except RuntimeError as error:
        if scores.device.type != "cpu" or bool(scores.softmax(dim=-1).isfinite().all()):
            raise
        raise InputError(
            "generate: the scores of the next token are no numbers (NaN), or all of a row are minus infinity: the "
            "model overflows (try float32 or bfloat16) or its weights are broken; remove_invalid_values=True goes on"
        ) from error


def call_flags(model: GenerativeModel, settings: GenerationConfig) -> dict[str, bool]:
    """Return the switches of the model's call that decoding sets itself.

    Raises InputError for an output that was asked for and that the model's call has no switch for.
    """
    known = call_parameters(model)
    flags = {"return_dict": True} if "return_dict" in known else {}
    for name in ("output_attentions", "output_hidden_states"):
        if getattr(settings, name) and settings.return_dict_in_generate:
            if name not in known:
                raise InputError(f"generate: {name}=True, but {type(model).__name__} does not take it in its call.")
            flags[name] = True
    return flags
