"""Jobs while they run: progress, Ctrl-C, forks."""

import io
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading

import pandas as pd
import pytest

import polylance
from conftest import COMMAND
from polylance import progress as bars


def many(rows: int) -> pd.DataFrame:
    return pd.DataFrame({"id": range(rows), "text": [f"text {row}" for row in range(rows)]})


def test_progress_is_reported_in_rows_for_a_frame_and_in_bytes_for_a_file(documents, address, tmp_path):
    seen = []
    polylance.embed(many(50), table=address, progress=seen.append)
    assert all(isinstance(step, polylance.Progress) for step in seen)
    done = [step.done for step in seen if step.stage == "embed"]
    assert done == sorted(done) and {step.total for step in seen if step.stage == "embed"} == {50}
    file = tmp_path / "docs.csv"
    many(50).to_csv(file, index=False)
    seen.clear()
    polylance.embed(file, table=tmp_path / "other.lance", progress=seen.append)
    assert {step.total for step in seen if step.stage == "embed"} == {file.stat().st_size}


def test_an_exception_of_the_progress_function_stops_the_job_which_commits(address, temporary):
    raised = []

    def stop(step):
        if pathlib.Path(address).exists():
            raised.append(step)
            raise StopIteration("enough")

    with pytest.raises(StopIteration, match="enough"):
        polylance.embed(many(2000), table=address, settings={"table.commit.rows": 100}, progress=stop)
    committed = len(polylance.Table(address))
    assert committed > 0 and not list(temporary.iterdir()) and len(raised) == 1
    report = polylance.embed(many(2000), table=address).report
    assert report.rows_skipped == committed and report.rows_written == 2000 - committed


def test_an_exception_in_encode_ends_it(encoder):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoder._native.encode(["text"] * 600, "", stop)
    assert encoder.encode("text").shape == (384,)


INTERRUPTED = """
    import sys, pandas as pd, polylance
    frame = pd.DataFrame({"id": range(4000), "text": [f"text {row}" for row in range(4000)]})
    def started(step):
        if step.rows:
            print("started", flush=True)
    try:
        polylance.embed(frame, table=sys.argv[1], progress=started)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_ctrl_c_raises_and_the_next_run_continues(address, temporary):
    job = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED), address], stdout=subprocess.PIPE, text=True
    )
    assert job.stdout.readline() == "started\n"
    job.send_signal(signal.SIGINT)
    *_, last = job.communicate(timeout=120)[0].splitlines()
    assert last == "interrupted" and job.returncode == 0 and not list(temporary.iterdir())
    report = polylance.embed(many(4000), table=address).report
    assert report.rows_skipped + report.rows_written == len(polylance.Table(address)) == 4000


def test_ctrl_c_ends_the_command_without_a_traceback(address, tmp_path):
    source, file = tmp_path / "docs.csv", tmp_path / "docs.toml"
    many(4000).to_csv(source, index=False)
    file.write_text(
        f"version = 1\n[source]\nuri = '{source}'\n[table]\nuri = '{address}'\ncommit.rows = 100\n", encoding="utf-8"
    )
    job = subprocess.Popen([COMMAND, "run", file], stderr=subprocess.PIPE, text=True)
    while not pathlib.Path(address).exists():
        assert job.poll() is None
    job.send_signal(signal.SIGINT)
    error = job.communicate(timeout=120)[1]
    assert job.returncode == 130 and "interrupted" in error and "Traceback" not in error, error


def test_a_progress_function_may_use_polylance(documents, address, tmp_path):
    table = polylance.embed(documents, text="body", table=address)
    seen = []
    polylance.embed(many(50), table=tmp_path / "other.lance", progress=lambda step: seen.append(len(table)))
    assert seen and set(seen) == {documents.num_rows}


def test_other_threads_run_while_a_job_runs(address):
    job = threading.Thread(target=polylance.embed, args=[many(200)], kwargs={"table": address})
    job.start()
    turns = 0
    while job.is_alive():
        turns += 1
    job.join()
    assert turns > 100 and len(polylance.Table(address)) == 200


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only where processes are forked")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_gets_an_error_and_does_not_hang(encoder):
    encoder.encode("before the fork")
    child = os.fork()
    if child == 0:
        try:
            encoder.encode("after the fork")
        except polylance.UsageError as error:
            os._exit(0 if "fork" in str(error) and "spawn" in error.hint else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert encoder.encode("in the parent").shape == (384,)


def test_bars_follow_the_protocol_of_tqdm(monkeypatch):
    made = []

    class Bar:
        def __init__(self, **options):
            self.options, self.n, self.total, self.closed = options, 0, options["total"], False
            made.append(self)

        def update(self, n):
            self.n += n

        def close(self):
            self.closed = True

    monkeypatch.setattr(bars, "_tqdm", lambda: Bar)
    with bars.shown(True) as function:
        function("embed", 10, 100, 1)
        function("embed", 100, 100, 9)
        function("index", 0, 0, 0)
    assert [(bar.options["desc"], bar.n, bar.total, bar.closed) for bar in made] == [
        ("embed", 100, 100, True), ("index", 0, None, True)]  # fmt: skip
    with bars.shown(False) as function:
        assert function is None
    with bars.shown(None) as function:
        assert function is None, "pytest's stderr is no terminal"


def test_without_tqdm_a_line_is_written(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with bars.shown(True, rows=8) as function:
        function("embed", 1, 2, 4)
    assert sys.stderr.getvalue() == "\rembed: 50%\033[K\r\033[K"


def test_a_bar_of_tqdm_is_drawn(documents, address, capfd):
    polylance.embed(documents, text="body", table=address, progress=True)
    assert pathlib.Path(address).exists() and "embed" in capfd.readouterr().err
