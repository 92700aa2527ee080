"""Packages that only some functions need."""

from __future__ import annotations

import importlib
from typing import Any


def load(package: str, purpose: str) -> Any:
    """The package. Its absence is an error that names the command which installs it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.partition(".")[0]:
            raise
        message = f"{purpose} needs the package {error.name}: pip install {error.name}"
        raise ModuleNotFoundError(message, name=error.name) from None
