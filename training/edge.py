"""The edge of training's commands: an error becomes one sentence and an exit code, as in `ledetr` itself."""

import sys
from collections.abc import Callable

from ledetr.errors import LeDetrError


def run(command: Callable[[], None]) -> None:
    """Call a command and leave the process with its exit code; --debug among the words shows the traceback."""
    try:
        command()
    except LeDetrError as error:
        if "--debug" in sys.argv:
            raise
        print(f"ledetr: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("ledetr: interrupted.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
