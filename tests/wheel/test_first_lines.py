"""The lines that the documentation shows first, as they are written there."""

import os
import pathlib
import textwrap

import pandas as pd
import pytest
from conftest import LANGUAGES, TEXTS
from hub import serve, write_model

import polylance

FIRST_LINES = """
    import polylance
    table = polylance.embed(df, text="body", table="docs.lance")        # any Arrow stream, or a path, URI or pipeline file
    table.search("heat pumps in old houses", k=5, where="year >= 2020").to_pandas()
    table.sql("SELECT lang, count(*) FROM docs GROUP BY lang").to_polars()
    table.annotate("people", task="ner", model="./entities")
    polylance.Encoder("intfloat/multilingual-e5-large").encode(texts)   # NumPy; accepted where SentenceTransformer.encode is
    polylance.run("docs.toml")                                          # -> a report object with _repr_html_
"""

TAGGED = "\n\n".join(f"{name} B-person\nsaw O\n{place} B-geo-loc\nyesterday O" for name, place in [
    ("Ada", "Paris"), ("Grace", "London"), ("Alan", "Berlin"), ("Emmy", "Rome"), ("Kurt", "Vienna"),
    ("Ada", "Madrid"), ("Grace", "Oslo"), ("Alan", "Lisbon"), ("Emmy", "Prague"), ("Kurt", "Athens"),
])  # fmt: skip


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, command) -> pathlib.Path:
    """A working folder with the head and the pipeline file that the lines name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tagged.conll").write_text(TAGGED, encoding="utf-8")
    fitted = command("fit", "--source", "tagged.conll", "--conll", "--out", "entities")
    assert fitted.returncode == 0, fitted.stderr
    (tmp_path / "docs.toml").write_text(
        'version = 1\n[source]\nuri = "docs.csv"\ntext = "body"\n[table]\nuri = "other.lance"\n', encoding="utf-8"
    )
    return tmp_path


def test_the_first_lines_run_as_they_are_written(folder, monkeypatch):
    model = folder / "hub"
    write_model(model)
    server = serve(model, "intfloat/multilingual-e5-large")
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(folder / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))

    years = range(2018, 2018 + len(TEXTS))
    df = pd.DataFrame({"body": TEXTS.values(), "year": years, "lang": LANGUAGES})
    df.assign(id=TEXTS.keys()).to_csv("docs.csv", index=False)
    texts = list(TEXTS.values())

    results = []
    names = {"df": df, "texts": texts}
    for line in textwrap.dedent(FIRST_LINES).strip().splitlines():
        try:
            results.append(eval(line, names))
        except SyntaxError:
            exec(line, names)
    server.shutdown()
    hits, counts, filled, vectors, report = results
    assert hits["text"].iloc[0] == TEXTS["d"] and hits["year"].min() >= 2020
    assert dict(counts.iter_rows()) == {"en": 2, "fr": 2, "ja": 1}
    assert filled.rows_annotated == len(df) and "people" in names["table"].sql("SELECT * FROM docs").columns
    assert vectors.shape == (len(df), 16)
    assert report.rows_written == len(df) and "<table>" in report._repr_html_()
    assert os.path.exists("docs.lance") and os.path.exists("other.lance")
