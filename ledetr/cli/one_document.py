"""--json: one JSON document on stdout and nothing else."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO


@contextmanager
def one_document(wanted: bool) -> Iterator[dict[str, Any]]:
    """A dict to fill; it is printed as JSON at the end when wanted, and not at all when the block raises.

    Whatever else is printed inside, by Python or by a library in C, goes to stderr instead. With wanted=False stdout
    is left alone and nothing is printed.
    """
    document: dict[str, Any] = {"schema_version": 1}
    if not wanted:
        yield document
        return
    stdout = sys.stdout
    with redirect_stdout(sys.stderr), _descriptor_to_stderr(stdout):
        yield document
    stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    stdout.flush()


@contextmanager
def _descriptor_to_stderr(stdout: TextIO) -> Iterator[None]:
    """File descriptor 1 points to stderr meanwhile: C libraries do not know sys.stdout."""
    stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
