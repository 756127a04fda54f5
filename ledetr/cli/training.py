"""`ledetr train`, `check-data` and `label`: training's own commands, each in a process of its own."""

import subprocess
import sys

import typer

# The words behind the command go on as they stand, --help too.
_AS_IT_STANDS = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

train_app = typer.Typer(add_completion=False)
check_data_app = typer.Typer(add_completion=False)
label_app = typer.Typer(add_completion=False)


@train_app.command(context_settings=_AS_IT_STANDS)
def train(ctx: typer.Context) -> None:
    """Train or fine-tune on a data set; `--help` lists the options."""
    raise typer.Exit(_call("training.train", ctx.args))


@check_data_app.command(context_settings=_AS_IT_STANDS)
def check_data(ctx: typer.Context) -> None:
    """Say whether a data set is fit to train on; `--help` lists the options."""
    raise typer.Exit(_call("training.check_data", ctx.args))


@label_app.command(context_settings=_AS_IT_STANDS)
def label(ctx: typer.Context) -> None:
    """Write labels that detectors make, with their scores; `--help` lists the options."""
    raise typer.Exit(_call("training.label", ctx.args))


def _call(module: str, words: list[str]) -> int:
    """The exit code of a module of training; on Ctrl-C both get the signal, so its last words are waited for."""
    with subprocess.Popen([sys.executable, "-m", module, *words]) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue
