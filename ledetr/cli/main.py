"""The command `ledetr`: its table of commands, and the one edge where errors become a sentence and an exit code.

A command's module is imported when the command is called, so `ledetr --help` is instant and loads no engine.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from ledetr import __version__
from ledetr.errors import LeDetrError

# name -> (module and what it exposes: a function or a typer app, one line for the help)
COMMANDS: dict[str, tuple[str, str]] = {
    "detect": ("ledetr.cli.detect:detect", "Find objects in pictures, videos, cameras and addresses."),
    "models": ("ledetr.cli.models:app", "List the scales: size, weights, accuracy, licence."),
    "bench": ("ledetr.cli.bench:bench", "Measure latency: the model alone, and frame to boxes."),
    "export": ("ledetr.cli.export:export", "Write a model as ONNX, OpenVINO or torch.export file, checked."),
    "eval": ("ledetr.cli.evaluate:evaluate", "Average precision on a COCO data set."),
    "train": ("ledetr.cli.training:train_app", "Train or fine-tune on your own pictures."),
    "check-data": ("ledetr.cli.training:check_data_app", "Say whether a data set is fit to train on."),
    "label": ("ledetr.cli.training:label_app", "Write labels that detectors make: pseudo-labels with scores."),
    "doctor": ("ledetr.cli.doctor:doctor", "Say what works on this machine and what is missing."),
    "gui": ("ledetr.cli.gui:app", "Open the window."),
}


class LazyCommands(TyperGroup):
    """Lists the commands from the table; imports the one that is called."""

    # typer's own context class is private, hence Any.
    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in with the name and the line of help, enough to be listed."""
        if cmd_name not in COMMANDS:
            return None
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name][1])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name not in COMMANDS:
            close = get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the commands are {', '.join(COMMANDS)}."
            ctx.fail(f"there is no command {name!r}; {hint}")
        return name, load_command(name), args[1:]


def load_command(name: str) -> TyperCommand | TyperGroup:
    """The real command behind a name of the table."""
    home, line = COMMANDS[name]
    module, attribute = home.split(":")
    exposed = getattr(import_module(module), attribute)
    if not isinstance(exposed, typer.Typer):
        single = typer.Typer(add_completion=False)
        single.command(name, help=exposed.__doc__ or line)(exposed)
        exposed = single
    command = typer.main.get_command(exposed)
    command.name = name
    return cast(TyperCommand | TyperGroup, command)


app = typer.Typer(cls=LazyCommands, no_args_is_help=True, add_completion=False, rich_markup_mode="rich")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ledetr {__version__}")
        raise typer.Exit()


@app.callback()
def _global_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Real-time object detection. Results go to stdout, progress and messages to stderr."""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; nothing that goes wrong leaves here as a traceback.

    0 done, 1 failure, 2 wrong use, 3 source or data, 4 model, 5 export, 6 some inputs failed, 130 interrupted.
    """
    _print_any_name()
    words, debug = _take_debug(list(sys.argv[1:] if args is None else args))
    try:
        result = app(words, prog_name="ledetr", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except BrokenPipeError:
        _let_go_of_stdout()
        return 1
    except KeyboardInterrupt:
        return _fail("interrupted.", 130, debug)
    except TyperException as error:
        return _usage_error(error)
    except LeDetrError as error:
        return _fail(str(error), error.exit_code, debug)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except Exception as error:
        if debug:
            return _fail("unexpected error.", 1, debug)
        return _fail(f"unexpected {type(error).__name__}: {_one_line(error)} (--debug shows the traceback)", 1, debug)


def script() -> None:
    """What the installed command `ledetr` calls."""
    sys.exit(main())


def _take_debug(words: list[str]) -> tuple[list[str], bool]:
    """--debug may stand anywhere before a lone "--"."""
    end = words.index("--") if "--" in words else len(words)
    kept = [word for word in words[:end] if word != "--debug"]
    return kept + words[end:], len(kept) < end


def _usage_error(error: TyperException) -> int:
    """One sentence, then where help is; asking for nothing shows the help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return 2
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else "ledetr"
    _say(f"ledetr: {_one_line(message)} Help: {path} --help")
    return int(getattr(error, "exit_code", 2))


def _fail(sentence: str, exit_code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    _say(f"ledetr: {sentence}")
    return exit_code


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)  # noqa: T201 - this is the edge that talks to the user


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


def _print_any_name() -> None:
    """A file name that the terminal cannot show is printed escaped rather than ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _let_go_of_stdout() -> None:
    """The reader went away; give Python something to flush at exit, so that it stays quiet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    script()
