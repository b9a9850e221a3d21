"""These tests run once for each backend of Keras, in processes of their own: `make test-keras`.

KERAS_BACKEND says which; without it, only what concerns a modelwright without Keras runs. A backend that is missing is
an error of the import, not a skip.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

# A pool of compilers takes longer to start than these small models take to compile.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

BACKEND = os.environ.get("KERAS_BACKEND")
if BACKEND is None:
    collect_ignore_glob = [
        path.name for path in Path(__file__).parent.glob("test_*.py") if path.name != "test_without_keras.py"
    ]
elif BACKEND != "torch":
    # Starts all backends itself, so once is enough.
    collect_ignore_glob = ["test_backends_agree.py"]
