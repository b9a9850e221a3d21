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


def decode(
    model: GenerativeModel, input_ids: Tensor, model_kwargs: dict[str, Any], run: Decoding
) -> Tensor | GenerateOutput:
    """Return the prompts [batch, tokens] with what the model adds to them, or that in a ModelOutput with more."""
    two_parts = is_encoder_decoder(model)
    kept, flags = Kept(run.settings, encoder_decoder=two_parts), call_flags(model, run.settings)
    unfinished = torch.ones(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
    if run.streamer is not None:
        run.streamer.put(input_ids.cpu())
    while bool(unfinished.any()):
        inputs = {**model.prepare_inputs_for_generation(input_ids, **model_kwargs), **flags}
        outputs = model(**inputs)
        model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs, two_parts)
        # A copy, so that the logits of the whole prefix can go.
        logits = model._next_token_logits(outputs, inputs)
        logits = logits.to(device=input_ids.device, dtype=torch.float32, copy=True)
        scores = run.processors(input_ids, logits)
        kept.add(logits, scores, outputs)
        chosen = _choose(scores, run)
        chosen = torch.where(unfinished, chosen, run.pad_id)
        input_ids = torch.cat([input_ids, chosen[:, None]], dim=-1)
        if run.streamer is not None:
            run.streamer.put(chosen.cpu())
        unfinished = unfinished & ~run.criteria(input_ids, kept.scores)
        del outputs
    if run.streamer is not None:
        run.streamer.end()
    if not run.settings.return_dict_in_generate:
        return input_ids
    return kept.result(input_ids, model_kwargs, None)


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
