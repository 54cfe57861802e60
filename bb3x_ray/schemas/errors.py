"""Errors that a person can mend: one sentence that names the file, line or field, and the cure."""

import traceback


class UserError(Exception):
    """Ends a command with its sentence and exit code 2, without a traceback (unless `--debug`).

    The sentence never holds text that a person wrote (law 10).
    """


def kind_and_place(error: Exception) -> str:
    """Of an error, without its message, which may hold a person's words (law 10)."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    return f"{type(error).__name__} at {frames[-1].filename}:{frames[-1].lineno}"
