"""Entry point of ``cvretrieval``: commands, exit status, error messages."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cvretrieval._version import __version__
from cvretrieval.cli import classify, collection, doctor, duplicates, engines, evaluate, search, serve, train, verify

_WRITING = ("index", "add", "remove", "compact", "export")


class _Commands(TyperGroup):
    """The commands; an interruption or a closed pipe is answered here, for typer would swallow it in silence."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            kept = ctx.invoked_subcommand in _WRITING
            hint = "; what was committed is kept, run the same command again to go on" if kept else ""
            print(f"\ninterrupted{hint}", file=sys.stderr)
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # The reader of our output went away, as `head` does; say nothing more to it, at exit neither.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None


app = typer.Typer(
    name="cvretrieval",
    cls=_Commands,
    help="Find the photos that show the same thing as this one.",
    epilog="Exit status: 0 done, 1 some inputs failed (they are named), 2 wrong use.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_EXAMPLES = (
    (collection.index, "cvretrieval index PHOTOS/ --out photos.cvr"),
    (search.search, "cvretrieval search photos.cvr query.jpg -k 10 --report report.html"),
    (collection.add, "cvretrieval add photos.cvr MORE/ new.jpg"),
    (collection.remove, "cvretrieval remove photos.cvr holiday/beach.jpg"),
    (collection.info, "cvretrieval info photos.cvr --check"),
    (collection.compact, "cvretrieval compact photos.cvr"),
    (engines.export, "cvretrieval export photos.cvr --to milvus --uri http://milvus:19530"),
    (verify.verify, "cvretrieval verify a.jpg b.jpg --report match.html"),
    (
        evaluate.evaluate,
        "cvretrieval evaluate DATASET/ --protocol oxford --method vlad --method bow:words=10000,verify=no",
    ),
    (duplicates.duplicates, "cvretrieval duplicates PHOTOS/ --report same.html"),
    (serve.serve, "cvretrieval serve photos.cvr --port 8080"),
    (doctor.doctor, "cvretrieval doctor"),
)
for _command, _example in _EXAMPLES:
    app.command(epilog=f"Example: {_example}")(_command)
app.add_typer(classify.app, name="classify", epilog="Example: cvretrieval classify train TRAIN/ --out model.cvc")
app.add_typer(train.app, name="train", epilog="Example: cvretrieval train cgd TRAIN/ --out cgd.cvm")


def _print_version(value: bool) -> None:
    if value:
        print(f"cvretrieval {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Find the photos that show the same thing as this one."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; expected errors become one line on standard error."""
    for stream in (sys.stdout, sys.stderr):
        # File names may hold bytes that are not text in any encoding; they must not stop a listing.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="surrogateescape" if stream is sys.stdout else "backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            app(arguments)
    except (ValueError, TypeError, KeyError, OSError, ImportError, RuntimeError) as error:
        if os.environ.get("CVRETRIEVAL_DEBUG"):
            raise
        from cvretrieval._validation import ImageReadError

        print(f"error: {_message(error)}", file=sys.stderr)
        raise SystemExit(1 if isinstance(error, ImageReadError) else 2) from None


def _message(error: Exception) -> str:
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _show_warning(message: Warning | str, *_: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)
