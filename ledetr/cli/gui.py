"""`ledetr gui`: the window, in a process of its own."""

import subprocess
import sys

import typer

app = typer.Typer(add_completion=False)


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []})
def gui(ctx: typer.Context) -> None:
    """Open the window; everything after `gui` goes to it as it stands, `--help` too."""
    raise typer.Exit(subprocess.call([sys.executable, "-m", "ledetr_app", *ctx.args]))
