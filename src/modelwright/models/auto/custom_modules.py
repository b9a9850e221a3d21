"""Where the code of checkpoints is imported from: the package that holds, by hash, what the user has trusted.

    <cache>/modelwright/h<sha256>/modeling_x.py  is  modelwright.models.auto.custom_modules.h<sha256>.modeling_x

The folder is this module's search path, so no path of the process changes, two versions of one file are two modules,
and another process finds a pickled class by its name. `modelwright.models.auto.remote_code` writes it.
"""

import os
from pathlib import Path

from huggingface_hub import constants

CACHE = Path(os.environ.get("HF_MODULES_CACHE") or Path(constants.HF_HOME, "modules")) / "modelwright"
__path__ = [str(CACHE)]
