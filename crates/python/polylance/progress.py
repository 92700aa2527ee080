"""Progress of jobs: bars of tqdm if it is installed, else a line on the terminal."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TextIO

#: Seconds between two updates of the line.
_LINE_INTERVAL = 0.2


class Progress(NamedTuple):
    """The progress of a job."""

    #: "embed", "index", "encode" (texts of an encoder), or the name of a column that is filled.
    stage: str
    #: The part that is done: bytes of the source's files in the stage "embed" (rows for a source in memory), else rows.
    done: int
    #: The whole, in the same unit; 0 if it is unknown.
    total: int
    #: Rows read so far.
    rows: int


#: Receives the progress of a job. An exception that it raises stops the job, which commits its rows first.
ProgressFunction = Callable[[Progress], object]
#: As the native half calls it.
NativeFunction = Callable[[str, int, int, int], None]


@contextmanager
def shown(progress: bool | ProgressFunction | None, rows: int | None = None) -> Iterator[NativeFunction | None]:
    """Shows the progress of a job with the given function, or with bars. `None` shows bars on terminals and in
    notebooks. `rows` is the number of the source's rows, if it is known: its progress is then counted in rows."""
    if callable(progress):
        yield _counted(progress, rows)
    elif progress or (progress is None and _is_interactive()):
        bars = _Bars(_tqdm(), in_rows=rows is not None)
        try:
            yield _counted(bars.update, rows)
        finally:
            bars.close()
    else:
        yield None


def _counted(function: ProgressFunction, rows: int | None) -> NativeFunction:
    def call(stage: str, done: int, total: int, read: int) -> None:
        if rows is not None and stage == "embed":
            done, total = read, rows
        function(Progress(stage, done, total, read))

    return call


class _Bars:
    """A bar for each stage."""

    def __init__(self, bar: Any, in_rows: bool):
        self._bar = bar
        self._in_rows = in_rows
        self._bars: dict[str, Any] = {}

    def update(self, progress: Progress) -> None:
        bar = self._bars.get(progress.stage)
        if bar is None:
            in_bytes = progress.stage == "embed" and not self._in_rows
            unit = {"unit": "B", "unit_scale": True} if in_bytes else {"unit": " rows"}
            bar = self._bar(desc=progress.stage, total=progress.total or None, leave=False, **unit)
            self._bars[progress.stage] = bar
        bar.total = progress.total or bar.total
        bar.update(progress.done - bar.n)

    def close(self) -> None:
        for bar in self._bars.values():
            bar.close()


class _Line:
    """A bar by tqdm's protocol, without tqdm: one line that is written again and again."""

    def __init__(self, desc: str, total: int | None = None, file: TextIO | None = None, **_unused: Any):
        self.n = 0
        self.total = total
        self._desc = desc
        self._file = file or sys.stderr
        self._written = 0.0

    def update(self, n: int) -> None:
        self.n += n
        now = time.monotonic()
        if now - self._written >= _LINE_INTERVAL:
            self._written = now
            share = f"{100 * self.n / self.total:.0f}%" if self.total else f"{self.n:,}"
            self._file.write(f"\r{self._desc}: {share}\033[K")
            self._file.flush()

    def close(self) -> None:
        if self._written:
            self._file.write("\r\033[K")
            self._file.flush()


def _is_interactive() -> bool:
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())


def _tqdm() -> Any:
    try:
        with warnings.catch_warnings():
            # In a notebook without ipywidgets, tqdm warns and draws its bars in text.
            warnings.simplefilter("ignore")
            from tqdm.auto import tqdm
    except ImportError:
        return _Line
    return tqdm
