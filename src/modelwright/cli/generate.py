"""`modelwright generate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from modelwright.cli.build_model import building_from
from modelwright.cli.console import print_json
from modelwright.core.errors import CheckpointMismatchError, InputError
from modelwright.hub.names import CONFIG_NAME

_MIN_TEMPERATURE = 1e-3  # below, logits divided by it overflow, and only the likeliest token is left anyway
_DECODER_START = 1  # tokens that an encoder-decoder's answer begins with and that are no text


def generate(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="Folder or hub name of a model and its tokenizer.")],
    prompt: Annotated[str, typer.Option(help="Text to continue; of an encoder-decoder, its source.")],
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to add.")] = 200,
    temperature: Annotated[float, typer.Option(help="Below 1 sharper, above 1 flatter; 0 takes the likeliest.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Draw from so many likeliest tokens; 0 for all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest tokens that share this probability.")] = 0.95,
    seed: Annotated[int | None, typer.Option(help="Of the draws; a new one each time if not given.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of streaming.")] = False,
) -> None:
    """Continue a prompt with a saved model, or answer it with an encoder-decoder."""
    if seed is None:
        import secrets

        seed = secrets.randbits(31)
    sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    _check(prompt, max_new_tokens, seed, sampling)  # bad values are told before torch is loaded
    model, tokenizer = load(checkpoint)
    result = continue_prompt(
        model,
        tokenizer,
        prompt,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
        stream=not json,
    )
    if json:
        print_json({"checkpoint": str(checkpoint), **result})


def load(checkpoint: str) -> tuple[Any, Any]:
    """Return the language model, causal or encoder-decoder, and the tokenizer in the folder or repository `checkpoint`.

    Raises CheckpointMismatchError if it lacks weights of the model, ConfigError if its config makes no model.
    """
    from modelwright.checkpoint.report import merge_keys
    from modelwright.hub.open import open_repo
    from modelwright.models.auto.configuration_auto import AutoConfig
    from modelwright.models.auto.modeling_auto import AutoModelForCausalLM, AutoModelForSeq2SeqLM
    from modelwright.models.auto.tokenization_auto import AutoTokenizer
    from modelwright.pretrained.adapters import base_of

    with building_from(Path(checkpoint, CONFIG_NAME)):
        described, revision = base_of(open_repo(checkpoint)) or (checkpoint, None)
        config = AutoConfig.from_pretrained(described, revision=revision)
        auto_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model, info = auto_class.from_pretrained(checkpoint, output_loading_info=True)
    if info["missing_keys"]:
        raise CheckpointMismatchError(
            f"{checkpoint}: expected all weights of the model, {len(info['missing_keys'])} are missing: "
            f"{', '.join(merge_keys(info['missing_keys']))}. Random ones would write nonsense: train the model first."
        )
    return model, AutoTokenizer.from_pretrained(checkpoint)


def continue_prompt(
    model: Any,
    tokenizer: Any,
    prompt: str,
    *,
    max_new_tokens: int,
    sampling: dict[str, Any],
    seed: int,
    stream: bool,
) -> dict[str, Any]:
    """Generate after `prompt`, to stdout as it comes if `stream`; return prompt, continuation, new tokens and seed.

    To an encoder-decoder the prompt is the source, and the continuation what it writes for it.
    sampling: temperature (0: greedy), top_k (0: off), top_p. The caller's random streams are not touched.
    Raises InputError for an empty prompt, a value out of range and a text longer than the model's positions.
    """
    from modelwright.generation.streamers import TextStreamer
    from modelwright.training.rng import seeded

    _check(prompt, max_new_tokens, seed, sampling)
    # Not every model takes the types of tokens, and those that do assume these: zeros, of one text.
    inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    if model.config.is_encoder_decoder:
        length = _DECODER_START
        _check_target_fits(model, max_new_tokens)
    else:
        length = inputs["input_ids"].shape[1]
        _check_text_fits(model, length, max_new_tokens)
    greedy = sampling["temperature"] == 0
    with seeded(seed):
        output = model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=not greedy,
            streamer=TextStreamer(tokenizer, skip_special_tokens=True) if stream else None,
            **({} if greedy else sampling),
        )
    new = output[0, length:]
    return {
        "prompt": prompt,
        "continuation": tokenizer.decode(new, skip_special_tokens=True),
        "new_tokens": len(new),
        "seed": seed,
    }


def _check_text_fits(model: Any, length: int, max_new_tokens: int) -> None:
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and length + max_new_tokens > positions:
        raise InputError(
            f"--max-new-tokens: expected at most {max(0, positions - length):,}, the model's {positions:,} positions "
            f"less the {length:,} tokens of the prompt, got {max_new_tokens:,}."
        )


def _check_target_fits(model: Any, max_new_tokens: int) -> None:
    # The last token is chosen, never fed, so the start token takes no room.
    positions = model._position_limit()
    if positions is not None and max_new_tokens > positions:
        raise InputError(
            f"--max-new-tokens: expected at most {positions:,}, the positions of the model's decoder, got "
            f"{max_new_tokens:,}."
        )


def _check(prompt: str, max_new_tokens: int, seed: int, sampling: dict[str, Any]) -> None:
    if not prompt:
        raise InputError("--prompt: expected some text to continue, got an empty one.")
    if max_new_tokens < 1:
        raise InputError(f"--max-new-tokens: expected a whole number of at least 1, got {max_new_tokens}.")
    if seed < 0:
        raise InputError(f"--seed: expected a whole number of at least 0, got {seed}.")
    if not sampling["temperature"] >= 0:
        raise InputError(f"--temperature: expected a number of at least 0, got {sampling['temperature']}.")
    if 0 < sampling["temperature"] < _MIN_TEMPERATURE:
        raise InputError(
            f"--temperature: expected at least {_MIN_TEMPERATURE}, or 0 for the likeliest token each time, got "
            f"{sampling['temperature']}."
        )
    if sampling["top_k"] < 0:
        raise InputError(f"--top-k: expected a whole number of at least 0, got {sampling['top_k']}.")
    if not 0 < sampling["top_p"] <= 1:
        raise InputError(f"--top-p: expected a number above 0 and up to 1, got {sampling['top_p']}.")
