"""modelwright: Transformer models and the tools to build, load, train, shrink and ship them.

Every public name can be imported from here and is loaded when it is first used, so that `import modelwright` costs
milliseconds and does not import torch. `_public.py` lists the names and where they live; `__init__.pyi`, made from it,
tells editors and type checkers.
"""

from modelwright import _public
from modelwright.core.lazy import serve
from modelwright.core.version import __version__ as __version__

__all__ = ["__version__", *_public.names()]

__getattr__, __dir__ = serve(__name__, _public.PUBLIC, _public.submodules(__name__))
