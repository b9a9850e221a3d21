"""What becomes of each form of import, as a table: the text before and after, and what is kept and why."""

import textwrap

import pytest

from modelwright.core.errors import InputError
from modelwright.migration.changes import Changes
from modelwright.migration.rewrite import rewrite


def migrated(source: str) -> Changes:
    changes = rewrite(textwrap.dedent(source).lstrip("\n"))
    again = rewrite(changes.after)
    assert again.after == changes.after, "a second run changed it again"
    assert again.kept == [] or changes.kept != []
    return changes


def check(before: str, after: str) -> Changes:
    changes = migrated(before)
    assert changes.after == textwrap.dedent(after).lstrip("\n")
    return changes


WHOLE = {
    "a name": ("from transformers import BertModel\n", "from modelwright import BertModel\n"),
    "an alias": ("from transformers import BertModel as B\n", "from modelwright import BertModel as B\n"),
    "a module path": (
        "from transformers.models.bert.modeling_bert import BertSelfAttention\n",
        "from modelwright.models.bert.modeling_bert import BertSelfAttention\n",
    ),
    "a path of 3.x": (
        "from transformers.modeling_bert import BertEncoder\n",
        "from modelwright.models.bert.modeling_bert import BertEncoder\n",
    ),
    "an attribute": (
        "import transformers\nm = transformers.BertModel\n",
        "import modelwright\nm = modelwright.BertModel\n",
    ),
    "an alias of the module": (
        "import transformers as tf\nm = tf.BertModel.from_pretrained('x')\n",
        "import modelwright as tf\nm = tf.BertModel.from_pretrained('x')\n",
    ),
    "a dotted path is imported": (
        "import transformers\nm = transformers.models.bert.modeling_bert.BertModel\n",
        "import modelwright.models.bert.modeling_bert\nimport modelwright\n"
        "m = modelwright.models.bert.modeling_bert.BertModel\n",
    ),
    "a dotted import": (
        "import transformers.models.bert.modeling_bert as mb\nmb.BertModel\n",
        "import modelwright.models.bert.modeling_bert as mb\nmb.BertModel\n",
    ),
    "in a function, in TYPE_CHECKING, with semicolons": (
        """
        import os; import transformers; import sys  # three
        if TYPE_CHECKING:
            from transformers import PreTrainedModel
        def f():
            import transformers
            return transformers.AutoModel, os, sys
        """,
        """
        import os; import modelwright; import sys  # three
        if TYPE_CHECKING:
            from modelwright import PreTrainedModel
        def f():
            import modelwright
            return modelwright.AutoModel, os, sys
        """,
    ),
    "the layout of a path": (
        "import transformers\nm = (transformers  # a\n    .  BertModel)\n",
        "import modelwright\nm = (modelwright  # a\n    .  BertModel)\n",
    ),
    "a name that is a module": (
        "from transformers import logging\nlogging.set_verbosity_error()\n",
        "from modelwright import logging\nlogging.set_verbosity_error()\n",
    ),
    "pytorch_quantization": (
        """
        from pytorch_quantization import nn as quant_nn
        from pytorch_quantization.tensor_quant import QuantDescriptor
        import pytorch_quantization
        quant_nn.QuantLinear
        pytorch_quantization.nn.TensorQuantizer
        """,
        """
        from modelwright.quantization import nn as quant_nn
        from modelwright.quantization.tensor_quant import QuantDescriptor
        import modelwright.quantization.nn
        import modelwright.quantization
        quant_nn.QuantLinear
        modelwright.quantization.nn.TensorQuantizer
        """,
    ),
    "a star": (
        "from transformers import *\nm = BertModel(BertConfig())\n",
        "from modelwright import BertConfig, BertModel\nm = BertModel(BertConfig())\n",
    ),
    "an argument of the same name is another thing": (
        "import transformers\ndef f(transformers):\n    return transformers.Anything\n",
        "import modelwright\ndef f(transformers):\n    return transformers.Anything\n",
    ),
    "a use above the import": (
        "for x in y:\n    transformers.BertModel\n    import transformers\n",
        "for x in y:\n    modelwright.BertModel\n    import modelwright\n",
    ),
    "nothing of theirs": ("import torch\nfrom .transformers import X\n", "import torch\nfrom .transformers import X\n"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_all_of_it_moves(name: str) -> None:
    assert check(*WHOLE[name]).kept == []


SPLIT = {
    "names": (
        "from transformers import BertModel, Trainer, BertConfig\n",
        "from modelwright import BertModel, BertConfig\nfrom transformers import Trainer\n",
        ["transformers.Trainer"],
    ),
    "comments and parentheses": (
        """
        # above
        from transformers import (  # open
            BertModel,  # the model
            Trainer,  # the trainer
            BertConfig,
            # between
            pipeline,  # last
        )  # end
        """,
        """
        # above
        from modelwright import (  # open
            BertModel,  # the model
            BertConfig,
            # between
        )
        from transformers import (
            Trainer,  # the trainer
            pipeline,  # last
        )  # end
        """,
        ["transformers.Trainer", "transformers.pipeline"],
    ),
    "a backslash": (
        "from transformers import Trainer, \\\n    BertModel, pipeline\n",
        "from transformers import Trainer, \\\n    pipeline\nfrom modelwright import BertModel\n",
        ["transformers.Trainer", "transformers.pipeline"],
    ),
    "one line": (
        "if x: from transformers import BertModel, Trainer\n",
        "if x: from modelwright import BertModel; from transformers import Trainer\n",
        ["transformers.Trainer"],
    ),
    "attributes": (
        "import transformers as tf  # why\ntf.BertModel; tf.Trainer\n",
        "import modelwright\nimport transformers as tf  # why\nmodelwright.BertModel; tf.Trainer\n",
        ["transformers.Trainer"],
    ),
    "a module as an object": (
        "import transformers\ntransformers.BertModel\nprint(transformers)\n",
        "import modelwright\nimport transformers\nmodelwright.BertModel\nprint(transformers)\n",
        ["transformers"],
    ),
    "a star": (
        "from transformers import *\nBertModel; Trainer\n",
        "from transformers import *\nfrom modelwright import BertModel\nBertModel; Trainer\n",
        ["transformers.*"],
    ),
    "two paths": (
        "from transformers.modeling_utils import PreTrainedModel, Conv1D, BertModel\n",
        "from modelwright.modeling_utils import PreTrainedModel, Conv1D\nfrom modelwright import BertModel\n",
        [],
    ),
}


@pytest.mark.parametrize("name", SPLIT)
def test_what_is_not_here_stays(name: str) -> None:
    before, after, kept = SPLIT[name]
    assert sorted(note.what for note in check(before, after).kept) == kept


KEPT = {
    "a version": ("from transformers import __version__\n", "the version of another library"),
    "the version, as an attribute": ("import transformers\ntransformers.__version__\n", "of another library"),
    "another meaning of our name": (
        "import transformers\nmodelwright = 3\ntransformers.BertModel\n",
        "gives the name modelwright another meaning",
    ),
    "another meaning of theirs": (
        "try:\n    import transformers\nexcept ImportError:\n    transformers = None\ntransformers.BertModel\n",
        "gives the name transformers another meaning, too",
    ),
    "an assignment": (
        "import transformers\ntransformers.BertModel = 3\n",
        "line 2 assigns to transformers.BertModel",
    ),
    "a global": (
        "def f():\n    global transformers\n    import transformers\n    transformers.BertModel\n",
        "global or nonlocal",
    ),
    "a pattern": (
        "import transformers\nmatch x:\n    case transformers.BertModel():\n        pass\n",
        "a case of a match statement uses transformers",
    ),
    "a folder": ("from transformers import models\n", "modelwright.models is a folder"),
    "a module of ours with too few names": (
        "from transformers.models import bert\nbert.BertModel; bert.FlaxBertModel\n",
        "modelwright does not have it",
    ),
    "a module that is no attribute": (
        "from transformers.models import bert\nbert.modeling_bert.BertModel\n",
        "modelwright.models.bert.modeling_bert must be imported by its path here",
    ),
    "no such module": ("import transformers.trainer\n", "modelwright has no such module"),
    "a star that nobody uses": ("from transformers import *\n", "no name of it is used in this file"),
}


@pytest.mark.parametrize("name", KEPT)
def test_it_is_kept_with_a_reason(name: str) -> None:
    before, reason = KEPT[name]
    changes = check(before, before)
    assert reason in "; ".join(note.reason for note in changes.kept)
    assert changes.moved == []


def test_a_package_keeps_the_star_that_it_hands_on() -> None:
    changes = rewrite("from transformers import *\nBertModel\n", "folder/__init__.py")
    assert changes.after == "from transformers import *\nfrom modelwright import BertModel\nBertModel\n"


HINTS = {
    "BertModel.from_pretrained('x', load_in_8bit=True)": ("load_in_8bit=", "floating-point dtype"),
    "Trainer(model=m)": ("Trainer", "must not be a model or a tokenizer of modelwright"),
    "class T(Trainer): pass": ("T(Trainer)", "must not be a model"),
    "patch('transformers.BertModel')": ("'transformers.BertModel'", "names a module"),
    "import_module('transformers')": ("'transformers'", "names a module"),
    "def f(x: 'transformers.BertModel'): pass": ("'transformers.BertModel'", "annotation is a string"),
    "BertModel.forward = f": ("transformers.BertModel.forward", "replaces a part of a class"),
    "ReformerModelWithLMHead(c)": ("transformers.ReformerModelWithLMHead", "never reseeds"),
}


@pytest.mark.parametrize("line", HINTS)
def test_what_is_left_by_hand_is_noted_once(line: str) -> None:
    imports = "import transformers\nfrom transformers import BertModel, Trainer, ReformerModelWithLMHead\n"
    what, reason = HINTS[line]
    notes = [note for note in migrated(imports + line + "\n").by_hand if note.what == what]
    assert len(notes) == 1
    assert reason in notes[0].reason


def test_harmless_values_are_not_noted() -> None:
    call = "BertModel.from_pretrained('x', from_tf=False, proxies=None)\n"
    changes = migrated(f"from transformers import BertModel\n{call}")
    assert changes.by_hand == []


def test_a_text_that_is_no_python_is_refused_with_its_line() -> None:
    with pytest.raises(InputError, match=r"^old\.py, line 2: this is no Python 3 that can be parsed"):
        rewrite("import transformers\nprint 'x'\n", "old.py")


def test_a_text_that_would_not_come_back_is_refused() -> None:
    with pytest.raises(InputError, match="cannot give this text back as it is"):
        rewrite("import transformers\rimport os\r")


def test_an_expression_that_is_too_deep_is_refused() -> None:
    with pytest.raises(InputError, match="deep.py: an expression is nested too deeply"):
        rewrite(f"import transformers\nx = {'+'.join(['1'] * 2000)}\n", "deep.py")
