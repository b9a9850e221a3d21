"""Named starting points of `train`: a window and a Reformer that goes with it."""

from collections.abc import Mapping
from typing import Any

from modelwright.core.errors import InputError, check_choice

# Options by their names in Python, as they are typed; each one given by hand takes the place of the preset's.
# A longer window has a step that takes longer: fewer of them lie between measurements, and more hash rounds find what
# is far away.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "reformer-4k": {
        "window": 4096,
        "layers": "local,lsh,local,lsh",
        "num_hashes": 1,
    },
    "reformer-16k": {
        "window": 16_384,
        "layers": "local,lsh,local,lsh,local,lsh",
        "num_hashes": 2,
        "local_chunk": 16,
        "eval_every": 50,
        "save_every": 100,
    },
    "reformer-64k": {
        "window": 65_536,
        "layers": "local,lsh,local,lsh,local,lsh",
        "num_hashes": 2,
        "local_chunk": 32,
        "eval_every": 25,
        "save_every": 50,
    },
}


def with_preset(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options given, and below them those of the `preset` among them; raises InputError for a wrong one."""
    options = dict(given)
    name = options.pop("preset", None)
    if name is None:
        return options
    check_choice("--preset", name, PRESETS)
    if "config" in options:
        raise InputError("--config describes the whole model: expected it alone, got it with --preset.")
    return {**PRESETS[name], **options}
