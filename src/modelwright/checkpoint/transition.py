"""From the files that are there to the files that shall be there: in which order, and which step is the commit.

A loader looks for model.safetensors, its index, pytorch_model.bin, its index, and reads shard names from an index only.
So most saves can be ordered such that one rename or one removal takes a loader from the old to the new checkpoint:

    what changes what a loader reads        commit
    ------------------------------------    ----------------------------------------------------------
    nothing is there yet                    the new entry (file or index) appears, after all else
    the new entry is preferred, or same     the new entry appears or replaces the old one
    the old entry is preferred              the old entry is removed, after the new one is complete

If more than that would change under a loader (shards that keep their names, a new config.json), there is no such order,
and the whole set is committed at once: see `commit`.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from modelwright.hub.names import (
    SAFE_WEIGHTS_NAME,
    WEIGHTS_NAME,
    add_variant,
    entry_names,
    is_distributed_shard,
    is_shard_of,
    is_weights_file,
)


@dataclass(frozen=True)
class Step:
    """Move the staged file `name` into the folder ("put"), or remove it from there ("remove")."""

    action: str
    name: str


@dataclass(frozen=True)
class Transition:
    """`before` and `after` are invisible to loaders, `commit` is the one step that counts; None: no such order exists.

    `put` and `remove` are all names, for committing everything at once.
    """

    before: tuple[Step, ...]
    commit: Step | None
    after: tuple[Step, ...]
    put: tuple[str, ...]
    remove: tuple[str, ...]


def belongs_to_variant(name: str, variant: str | None) -> bool:
    """Tell whether `name` is a weights file, index or shard of exactly this variant; distributed ones have none."""
    if variant is None and is_distributed_shard(name):
        return True
    weights = (add_variant(SAFE_WEIGHTS_NAME, variant), add_variant(WEIGHTS_NAME, variant))
    return name in entry_names(variant) or any(is_shard_of(name, one) for one in weights)


def make_transition(
    present: Collection[str],
    weights: Iterable[str],
    entry: str,
    *,
    variant: str | None,
    extras: Iterable[str],
    changed_extras: Collection[str],
) -> Transition:
    """Return the steps for saving the files `weights` (`entry` among them) and `extras` over the names `present`.

    `changed_extras` are those of the extras that are not in the folder with the same content.
    """
    order = entry_names(variant)
    others = [name for name in weights if name != entry]
    extras = [name for name in extras if name in changed_extras]
    stale = [name for name in sorted(present) if belongs_to_variant(name, variant) and name not in (*others, entry)]
    # Indexes and single files first: a loader must not find an index whose shards are gone.
    stale.sort(key=lambda name: name not in order)
    put, remove = (*extras, *others, entry), tuple(stale)
    old = next((name for name in order if name in present), None)
    clash = old is not None and old.endswith(".json") and any(name in present for name in others)
    new_config = bool(extras) and any(map(is_weights_file, present))
    if clash or new_config:
        return Transition((), None, (), put, remove)
    puts = tuple(Step("put", name) for name in put)
    removes = tuple(Step("remove", name) for name in stale)
    if old is None or order.index(entry) <= order.index(old):
        return Transition(puts[:-1], puts[-1], removes, put, remove)
    early = tuple(step for step in removes if step.name in order[: order.index(entry)] and step.name != old)
    late = tuple(step for step in removes if step.name != old and step not in early)
    return Transition((*early, *puts), Step("remove", old), late, put, remove)
