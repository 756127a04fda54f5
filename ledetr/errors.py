"""What can go wrong for a user, as one family of errors.

Every message is one sentence with the value, the expectation and the next step. The command line turns an error into
its exit code; the window shows the message in its error bar. Wrong calls by a programmer raise ValueError instead.
"""


class LeDetrError(Exception):
    """Something a user can meet: the message says what is wrong and what to do."""

    exit_code = 1


class UsageError(LeDetrError):
    """The request itself makes no sense, e.g. an unknown class name or an output equal to the input."""

    exit_code = 2


class SourceError(LeDetrError):
    """A video, image, camera, address or data set cannot be read."""

    exit_code = 3


class WeightsError(LeDetrError):
    """A weights or model file is missing, damaged or made for another network."""

    exit_code = 4


class BackendUnavailable(LeDetrError):
    """The chosen engine or device is not usable on this machine."""

    exit_code = 4


class ExportError(LeDetrError):
    """A model file could not be written, or did not give the same results as the original."""

    exit_code = 5


class OutputError(LeDetrError):
    """A result cannot be written: folder not writable, disk full, name taken."""

    exit_code = 1


class PartialFailure(LeDetrError):
    """Some inputs of a batch failed and the others are done."""

    exit_code = 6


class Interrupted(LeDetrError):
    """The user pressed Ctrl-C or Cancel; what was written so far is kept and playable."""

    exit_code = 130
