"""The `modelwright` command.

Exit codes: 0 done, 1 a negative answer (`verify`, `migrate`, `doctor`) or a failing machine, 2 bad input, 130
interrupted. Bad input is one sentence on stderr, never a traceback; a traceback is a defect of ours.
"""

import io
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from modelwright.cli.convert import convert
from modelwright.cli.diff import diff
from modelwright.cli.doctor import doctor
from modelwright.cli.embed import classify, embed
from modelwright.cli.generate import generate
from modelwright.cli.inspect import inspect
from modelwright.cli.migrate import migrate
from modelwright.cli.plan import plan
from modelwright.cli.prune import prune
from modelwright.cli.quantize import quantize
from modelwright.cli.tokenizer import app as tokenizer
from modelwright.cli.train import train
from modelwright.cli.verify import verify
from modelwright.core.errors import ModelwrightError
from modelwright.core.version import __version__

# click.ClickException, which newer typer versions carry inside and older ones import.
_CommandLineError: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


class _Group(TyperGroup):
    """Turns every expected failure into one sentence and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs)
        except _CommandLineError as error:
            _fail(f"{error.format_message().rstrip('.')}. {_help_hint(error)}", 2)
        except ModelwrightError as error:
            _fail(str(error), 2)
        except BrokenPipeError:
            sys.stderr.close()  # the reader has gone; the interpreter must not complain about it at exit
            sys.exit(1)
        except OSError as error:  # a full disk, a folder that may not be written: the machine's sentence is a good one
            _fail(str(error), 1)
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    print(f"modelwright: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _help_hint(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return f"See '{context.command_path} --help'." if context else "See 'modelwright --help'."


app = typer.Typer(
    name="modelwright",
    cls=_Group,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    """Train, run and check Transformer models."""
    if version:
        print(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit


for command in (
    train,
    generate,
    inspect,
    plan,
    verify,
    diff,
    convert,
    prune,
    quantize,
    embed,
    classify,
    migrate,
    doctor,
):
    app.command()(command)
app.add_typer(tokenizer)


def main() -> None:
    """Run the command with the arguments of this process; the entry point of the console script."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 shows "?" for what it cannot write
    app(prog_name="modelwright")
