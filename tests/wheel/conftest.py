"""Tests of the installed wheel: nothing here imports from the source tree."""

import pathlib

import pyarrow as pa
import pytest

TEXTS = {
    "a": "Everyone has the right to education.",
    "b": "Toute personne a droit au repos et aux loisirs.",
    "c": "La cuisine des vieilles maisons est froide en hiver.",
    "d": "A heat pump warms an old house without gas.",
    "e": "すべて人は、教育を受ける権利を有する。",
}


@pytest.fixture
def documents() -> pa.Table:
    """Five short documents, with a year each."""
    years = pa.array(range(2018, 2018 + len(TEXTS)), pa.int32())
    return pa.table({"id": list(TEXTS), "body": list(TEXTS.values()), "year": years})


@pytest.fixture
def address(tmp_path: pathlib.Path) -> str:
    """Where a table may be made."""
    return str(tmp_path / "docs.lance")
