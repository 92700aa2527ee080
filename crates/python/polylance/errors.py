"""Exceptions. Their text and their hint are those of the command line."""

from __future__ import annotations


class PolylanceError(Exception):
    """A job, a search or a model failed. `hint` is what to do about it, where that is known."""

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n  hint: {self.hint}" if self.hint else message


class UsageError(PolylanceError, ValueError):
    """An argument, a pipeline file, a source or a table is not as it has to be."""
