"""`ledetr train`, `check-data`, `label`, `bench --training`: training's own commands, each in a process of its own."""

import signal
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
    raise typer.Exit(call_training("training.train", ctx.args))


@check_data_app.command(context_settings=_AS_IT_STANDS)
def check_data(ctx: typer.Context) -> None:
    """Say whether a data set is fit to train on; `--help` lists the options."""
    raise typer.Exit(call_training("training.check_data", ctx.args))


@label_app.command(context_settings=_AS_IT_STANDS)
def label(ctx: typer.Context) -> None:
    """Write labels that detectors make, with their scores; `--help` lists the options."""
    raise typer.Exit(call_training("training.label", ctx.args))


def call_training(module: str, words: list[str]) -> int:
    """The exit code of a module of training, after its last words.

    Ctrl-C reaches both processes by itself. A polite kill reaches only this one and is passed on, to the child alone:
    it tells its own processes, for which a second signal would mean to end at once.
    """
    with subprocess.Popen([sys.executable, "-m", module, *words]) as process:
        before = signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
        try:
            return _exit_code(process)
        finally:
            signal.signal(signal.SIGTERM, before)


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            code = process.wait()
            return code if code >= 0 else 128 - code  # ended by a signal: as a shell tells it
        except KeyboardInterrupt:
            continue
