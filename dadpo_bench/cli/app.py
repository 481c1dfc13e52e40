"""The program itself: its commands, and how failures are told.

Exit 2: the user's; 1: ours; 130: stopped; 141: nobody reads on.
"""

from __future__ import annotations

import io
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from dadpo_bench import __version__
from dadpo_bench.errors import Interrupted, UserError, WorkError
from dadpo_bench.tables import printable

errors = Console(stderr=True)

# typer carries its own click; this is that click's UsageError.
_UsageError: type[Any] = typer.BadParameter.__mro__[1]


def _say(text: str) -> None:
    # Names in it are other people's text.
    errors.print(f"error: {printable(text, len(text))}", markup=False, emoji=False, highlight=False, soft_wrap=True)


class _Program(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal of another encoding is no reason to fail
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            command = error.ctx.command_path if error.ctx else ctx.command_path
            message = " ".join(error.format_message().split()).rstrip(".") or "name a command"
            _say(f"{message}; see {command} --help")
            raise typer.Exit(2) from error
        except UserError as error:
            _say(str(error))
            raise typer.Exit(2) from error
        except WorkError as error:
            _say(str(error))
            raise typer.Exit(1) from error
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            _say(f"{error.filename or 'system'}: {error.strerror or error}")
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            how = str(error) if isinstance(error, Interrupted) else "the same command goes on from here"
            errors.print(f"stopped; {how}", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(130) from error


app = typer.Typer(
    name="dadpo-bench",
    cls=_Program,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Which distillation method gives a student the best conversation, and is the difference real?",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"dadpo-bench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
