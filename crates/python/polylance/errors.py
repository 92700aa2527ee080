"""Exceptions. Their messages and hints are those of the command line."""

from __future__ import annotations


class PolylanceError(Exception):
    """A job, a search or a model failed.

    `message` is the error with its causes, `hint` says what to do about it, if that is known. `str()` has both.
    """

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class UsageError(PolylanceError, ValueError):
    """An argument, a pipeline file, a source or a table is invalid. Every other `PolylanceError` is a failure of the
    environment (a store, a disk, a device), and the same call may succeed later."""
