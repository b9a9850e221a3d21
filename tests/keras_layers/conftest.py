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

HERE = Path(__file__).parent
BACKEND = os.environ.get("KERAS_BACKEND")
WITHOUT_KERAS = "test_without_keras.py"
if BACKEND is None:
    collect_ignore_glob = [path.name for path in HERE.glob("test_*.py") if path.name != WITHOUT_KERAS]
elif BACKEND == "torch":
    collect_ignore_glob = [WITHOUT_KERAS]
else:
    # That backends agree is asked once: the test starts all of them itself.
    collect_ignore_glob = [WITHOUT_KERAS, "test_backends_agree.py"]
