"""Tests of the installed wheel: nothing here imports from the source tree, and nothing leaves this machine."""

import contextlib
import importlib.util
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

import pyarrow as pa
import pytest

# Libraries may look for their own models, versions and settings: not in a test.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")

import polylance

# mteb needs PyTorch: `make wheel-mteb` installs both.
collect_ignore = [] if importlib.util.find_spec("mteb") else ["test_mteb.py"]

COMMAND = pathlib.Path(sys.executable).parent / "polylance"

TEXTS = {
    "a": "Everyone has the right to education.",
    "b": "Toute personne a droit au repos et aux loisirs.",
    "c": "La cuisine des vieilles maisons est froide en hiver.",
    "d": "A heat pump warms an old house without gas.",
    "e": "すべて人は、教育を受ける権利を有する。",
}
LANGUAGES = ["en", "fr", "fr", "en", "ja"]


@pytest.fixture
def documents() -> pa.Table:
    """Five short documents, with a year and a language each."""
    years = pa.array(range(2018, 2018 + len(TEXTS)), pa.int32())
    return pa.table({"id": list(TEXTS), "body": list(TEXTS.values()), "year": years, "lang": LANGUAGES})


@pytest.fixture
def address(tmp_path: pathlib.Path) -> str:
    """Where a table may be made."""
    return str(tmp_path / "docs.lance")


@pytest.fixture(scope="session")
def encoder() -> polylance.Encoder:
    """The model in the package."""
    return polylance.Encoder()


@pytest.fixture
def temporary(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The folder for temporary files, at first empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the installed command."""

    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True, **options)

    return run


def write_arrow(table: pa.Table, path: pathlib.Path) -> str:
    """Writes an Arrow file and returns its path."""
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(pa.OSFile(str(path), "wb"))
        stack.enter_context(pa.ipc.new_file(sink, table.schema)).write_table(table)
    return str(path)
