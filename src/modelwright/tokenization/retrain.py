"""A new vocabulary for a fast tokenizer: the same pipeline, trained on other texts."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, pre_tokenizers, trainers

from modelwright.core.errors import InputError
from modelwright.tokenization.added_tokens import as_added_token

_KEPT_BY_TRAINER = {
    "WordPiece": ("continuing_subword_prefix",),
    "BPE": ("continuing_subword_prefix", "end_of_word_suffix"),
    "Unigram": (),
    "WordLevel": (),
}


def retrained(
    where: str,
    backend: Tokenizer,
    texts: Iterable[str] | Iterable[Sequence[str]],
    vocab_size: int,
    *,
    length: int | None,
    special_tokens: Sequence[AddedToken],
    renamed: Mapping[str, str],
    **trainer_options: Any,
) -> Tokenizer:
    """Return a tokenizer with the pipeline of `backend` and a vocabulary of `vocab_size` tokens trained on `texts`.

    special_tokens: enter first. renamed: the new text of special tokens of the old pipeline. length: how many texts
    there are, for the progress bar. Raises InputError for a model that cannot be trained or a size that cannot be.
    """
    if isinstance(vocab_size, bool) or not isinstance(vocab_size, int) or vocab_size < 1:
        raise InputError(f"{where}: expected vocab_size to be a whole number, 1 or more; got {vocab_size!r}.")
    state = json.loads(backend.to_str())
    kind = state["model"]["type"]
    if kind not in _KEPT_BY_TRAINER:
        raise InputError(f"{where}: expected a model that can be trained ({', '.join(_KEPT_BY_TRAINER)}), got {kind}.")
    options = {name: value for name in _KEPT_BY_TRAINER[kind] if (value := state["model"].get(name)) is not None}
    unknown = state["model"].get("unk_token")
    if kind == "Unigram" and state["model"]["unk_id"] is not None:
        unknown = state["model"]["vocab"][state["model"]["unk_id"]][0]
        options["unk_token"] = renamed.get(unknown, unknown)
    if kind == "BPE" and "ByteLevel" in json.dumps(state["pre_tokenizer"]):
        options["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
    specials = list(special_tokens)
    known = {token.content for token in specials}
    if unknown is not None and renamed.get(unknown, unknown) not in known:
        specials.insert(0, as_added_token(where, renamed.get(unknown, unknown), special=True))
    empty = Tokenizer.from_str(json.dumps(_emptied(state, kind, renamed)))
    trainer = getattr(trainers, f"{kind}Trainer")(
        vocab_size=vocab_size, special_tokens=specials, **(options | trainer_options)
    )
    empty.train_from_iterator(texts, trainer=trainer, length=length)
    # Rows are framed with the new ids of the special tokens.
    if state["post_processor"] is not None:
        final = json.loads(empty.to_str())
        final["post_processor"] = _with_new_ids(where, state["post_processor"], empty, renamed)
        empty = Tokenizer.from_str(json.dumps(final))
    return empty


def _emptied(state: Mapping[str, Any], kind: str, renamed: Mapping[str, str]) -> dict[str, Any]:
    model = dict(state["model"])
    if kind == "Unigram":
        model |= {"vocab": [], "unk_id": None}
    else:
        model["vocab"] = {}
        if model.get("unk_token") in renamed:
            model["unk_token"] = renamed[model["unk_token"]]
        if kind == "BPE":
            model["merges"] = []
    return {**state, "model": model, "added_tokens": [], "post_processor": None}


def _with_new_ids(where: str, processor: Any, backend: Tokenizer, renamed: Mapping[str, str]) -> Any:
    def new(token: str) -> tuple[str, int]:
        text = renamed.get(token, token)
        index = backend.token_to_id(text)
        if index is None:
            raise InputError(f"{where}: rows are framed with {text!r}, which is no special token of the new tokenizer.")
        return text, index

    processor = json.loads(json.dumps(processor))
    if processor["type"] == "Sequence":
        processor["processors"] = [_with_new_ids(where, each, backend, renamed) for each in processor["processors"]]
    elif processor["type"] in ("BertProcessing", "RobertaProcessing"):
        processor |= {role: list(new(processor[role][0])) for role in ("sep", "cls")}
    elif processor["type"] == "TemplateProcessing":
        stored = processor["special_tokens"]
        names = {name: [new(token) for token in entry["tokens"]] for name, entry in stored.items()}
        processor["special_tokens"] = {
            renamed.get(name, name): {
                "id": renamed.get(name, name),
                "ids": [index for _, index in tokens],
                "tokens": [text for text, _ in tokens],
            }
            for name, tokens in names.items()
        }
        for part in (*processor["single"], *processor["pair"]):
            if "SpecialToken" in part:
                name = part["SpecialToken"]["id"]
                part["SpecialToken"]["id"] = renamed.get(name, name)
    return processor
