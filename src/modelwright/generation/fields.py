"""The fields of generation_config.json and what each is when nothing is said: those of transformers 4.57, and OURS."""

from typing import Any

# What `generate` acts on.
ACTIVE: dict[str, Any] = {
    "max_length": 20,
    "max_new_tokens": None,
    "min_length": 0,
    "min_new_tokens": None,
    "max_time": None,
    "stop_strings": None,
    "do_sample": False,
    "num_beams": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "length_penalty": 1.0,
    "early_stopping": False,
    "num_return_sequences": 1,
    # None: a cache where the model has one. 4.x has True here, which cannot be told from an explicit True.
    "use_cache": None,
    "cache_implementation": None,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "min_p": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "sequence_bias": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
    "remove_invalid_values": False,
    "renormalize_logits": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "output_scores": False,
    "output_logits": None,
    "return_dict_in_generate": False,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "decoder_start_token_id": None,
}

# What transformers does not have, and `generate` acts on.
OURS: dict[str, Any] = {"speculative_ngram": False}

# What `generate` cannot do yet: kept in files, refused when it decodes with another value than this.
NOT_BUILT: dict[str, Any] = {
    "cache_config": None,
    "prefill_chunk_size": None,
    "token_healing": False,
    "guidance_scale": None,
    "watermarking_config": None,
    "prompt_lookup_num_tokens": None,
    "penalty_alpha": None,
    "dola_layers": None,
    "constraints": None,
    "force_words_ids": None,
}

# What shapes a method that is not running (an assistant, a compiled call): kept in files, idle here as in 4.x.
IDLE: dict[str, Any] = {
    "return_legacy_cache": None,
    "is_assistant": False,
    "num_assistant_tokens": 20,
    "num_assistant_tokens_schedule": "constant",
    "assistant_confidence_threshold": 0.4,
    "assistant_early_exit": None,
    "assistant_lookbehind": 10,
    "target_lookbehind": 10,
    "max_matching_ngram_size": None,
    "compile_config": None,
    "disable_compile": False,
    "low_memory": None,
}

DEFAULTS: dict[str, Any] = ACTIVE | OURS | NOT_BUILT | IDLE

# Fields that act only when `do_sample` is True.
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")

# Fields that act only when `num_beams` is more than 1.
OF_BEAMS = ("num_beam_groups", "diversity_penalty", "length_penalty", "early_stopping")

# Fields that act only when `return_dict_in_generate` is True.
EXTRA_OUTPUTS = ("output_attentions", "output_hidden_states", "output_scores", "output_logits")

# Arguments of 4.x's `generate` itself, which a configuration must not hold.
GENERATE_ARGUMENTS = (
    "logits_processor", "stopping_criteria", "prefix_allowed_tokens_fn", "synced_gpus", "assistant_model", "streamer",
    "negative_prompt_ids", "negative_prompt_attention_mask", "use_model_defaults", "generator", "tokenizer",
)  # fmt: skip
