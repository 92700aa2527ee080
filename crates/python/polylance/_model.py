"""The built-in model, where a package of its own has it instead of the native module."""

from __future__ import annotations

import importlib.util

from . import _polylance


def use_package() -> None:
    """Lets the native module read the built-in model from the package `polylance-e5-small`, if that is installed."""
    spec = importlib.util.find_spec("polylance_e5_small")
    for folder in (spec and spec.submodule_search_locations) or ():
        _polylance.set_model_folder(folder)
