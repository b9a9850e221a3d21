"""Which settings cannot work: rules on the fields of a GenerationConfig."""

from collections.abc import Mapping
from typing import Any

from modelwright.core.errors import ConfigError

_FLAGS = (
    "do_sample", "output_attentions", "output_hidden_states", "output_scores", "return_dict_in_generate",
    "speculative_ngram",
)  # fmt: skip
_OPTIONAL_FLAGS = ("use_cache", "output_logits", "remove_invalid_values", "renormalize_logits")
_ID_LISTS = ("suppress_tokens", "begin_suppress_tokens")
# Whole numbers: field -> smallest value.
_COUNTS = {
    "max_length": 1,
    "max_new_tokens": 1,
    "min_length": 0,
    "min_new_tokens": 0,
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "bos_token_id": 0,
    "forced_bos_token_id": 0,
}


def check_settings(values: Mapping[str, Any]) -> None:
    """Raise ConfigError, naming the field, for a value or a combination that cannot work.

    Sampling fields are checked only with `do_sample`: files exist that hold a temperature of 0 beside greedy search.
    """
    for name in _FLAGS:
        _require(name, values[name], isinstance(values[name], bool), "True or False")
    for name in _OPTIONAL_FLAGS:
        _require(name, values[name], values[name] is None or isinstance(values[name], bool), "True, False or None")
    for name, smallest in _COUNTS.items():
        value = values[name]
        _require(name, value, value is None or _whole(value, smallest), f"a whole number, {smallest} or more")
    # -1 stands for "none" in old files; what needs the token will ask for it.
    pad = values["pad_token_id"]
    _require("pad_token_id", pad, pad is None or _whole(pad, -1), "a token id")
    for name, smallest in (("eos_token_id", -1), ("forced_eos_token_id", 0)):
        end = values[name]
        ids = end if isinstance(end, list) else [end]
        _require(name, end, end is None or all(_whole(each, smallest) for each in ids), "a token id or a list of them")
    for name in _ID_LISTS:
        listed = values[name]
        good = listed is None or (isinstance(listed, (list, tuple)) and all(_whole(each, 0) for each in listed))
        _require(name, listed, good, "a list of token ids")
    start = values["decoder_start_token_id"]
    starts = start if isinstance(start, list) else [start]
    good = start is None or (bool(starts) and all(_whole(each, 0) for each in starts))
    _require("decoder_start_token_id", start, good, "a token id, or a list of one for each row")
    _check_positive("repetition_penalty", values["repetition_penalty"])
    _check_positive("encoder_repetition_penalty", values["encoder_repetition_penalty"])
    _check_positive("max_time", values["max_time"])
    stop = values["stop_strings"]
    strings = [stop] if isinstance(stop, str) else stop
    good = stop is None or (isinstance(strings, list) and all(isinstance(each, str) and each for each in strings))
    _require("stop_strings", stop, good, "a string or a list of strings, none of them empty")
    _check_beams(values)
    if values["speculative_ngram"]:
        _check_drafts(values)
    if values["do_sample"]:
        _check_sampling(values)
    elif values["num_return_sequences"] not in (None, 1) and values["num_beams"] in (None, 1):
        raise ConfigError(
            f"GenerationConfig: num_return_sequences={values['num_return_sequences']} would repeat one greedy answer: "
            "set do_sample=True, or leave it at 1."
        )


def _check_beams(values: Mapping[str, Any]) -> None:
    early, penalty, diversity = (values[name] for name in ("early_stopping", "length_penalty", "diversity_penalty"))
    _require("early_stopping", early, early in (True, False, None, "never"), 'True, False or "never"')
    _require("length_penalty", penalty, penalty is None or _number(penalty), "a number")
    _require("diversity_penalty", diversity, diversity is None or _number(diversity), "a number")
    names = ("num_beams", "num_beam_groups", "num_return_sequences")
    beams, groups, returned = (values[name] or 1 for name in names)
    if beams == 1:
        return
    if returned > beams:
        raise ConfigError(
            f"GenerationConfig: num_return_sequences={returned} of num_beams={beams}: each beam gives one answer; set "
            f"num_beams to {returned} or more."
        )
    if groups > 1 and (beams % groups or values["do_sample"] or not (diversity or 0) > 0):
        raise ConfigError(
            f"GenerationConfig: expected num_beam_groups={groups} to divide num_beams={beams}, with do_sample=False "
            f"and a diversity_penalty above 0; got do_sample={values['do_sample']} and diversity_penalty={diversity}."
        )


def _check_drafts(values: Mapping[str, Any]) -> None:
    if (beams := values["num_beams"] or 1) > 1:
        raise ConfigError(
            f"GenerationConfig: speculative_ngram drafts tokens of one row, not of beams, got num_beams={beams}: set "
            "num_beams=1 (greedy search or sampling) or speculative_ngram=False."
        )
    shown = [name for name in ("output_attentions", "output_hidden_states") if values[name]]
    if shown and values["return_dict_in_generate"]:
        raise ConfigError(
            "GenerationConfig: with speculative_ngram a call reads several tokens, so there is no "
            f"{' or '.join(shown)} of each: leave that out, or set speculative_ngram=False."
        )


def _check_sampling(values: Mapping[str, Any]) -> None:
    temperature, top_k, top_p, min_p = (values[name] for name in ("temperature", "top_k", "top_p", "min_p"))
    if temperature is not None and not (_number(temperature) and temperature > 0):
        raise ConfigError(
            f"GenerationConfig: expected temperature to be a number above 0, got {temperature!r}. For the most likely "
            "token at each step use do_sample=False."
        )
    _require("top_k", top_k, top_k is None or _whole(top_k, 0), "a whole number, or 0 for no limit")
    # As 0 keeps only the most likely token it is allowed, as in 4.x.
    _require("top_p", top_p, top_p is None or (_number(top_p) and 0 <= top_p <= 1), "a number from 0 to 1")
    _require("min_p", min_p, min_p is None or (_number(min_p) and 0 <= min_p <= 1), "a number from 0 to 1")
    typical = values["typical_p"]
    _require("typical_p", typical, typical is None or (_number(typical) and 0 < typical <= 1), "above 0, at most 1")
    for name in ("epsilon_cutoff", "eta_cutoff"):
        cutoff = values[name]
        _require(name, cutoff, cutoff is None or (_number(cutoff) and 0 <= cutoff < 1), "a number from 0 to below 1")


def _check_positive(name: str, value: Any) -> None:
    _require(name, value, value is None or (_number(value) and value > 0), "a number above 0")


def _require(name: str, value: Any, good: bool, expected: str) -> None:
    if not good:
        raise ConfigError(f"GenerationConfig: expected {name} to be {expected}, got {value!r}.")


def _whole(value: Any, smallest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= smallest


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
