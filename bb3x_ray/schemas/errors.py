"""Errors that a person can mend: one sentence that names the file, line or field, and the cure."""


class UserError(Exception):
    """Ends a command with its sentence and exit code 2, without a traceback (unless `--debug`).

    The sentence never holds text that a person wrote (law 10).
    """
