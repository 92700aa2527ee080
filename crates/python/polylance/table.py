"""Tables: search, SQL and annotation."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from . import _polylance, progress as bars
from .report import Report
from .rows import Rows


class Table:
    """A table that polylance made.

    model
        Where the table's model is now, when it has moved or was not used on this machine yet.
    trust_table_model
        Load whatever model the table names: only for tables whose author you trust.
    reranker
        A cross-encoder for searches with `rerank=True`.
    """

    def __init__(
        self,
        uri: str | os.PathLike[str],
        *,
        model: str | None = None,
        trust_table_model: bool = False,
        reranker: str | None = None,
        devices: str | Sequence[str] = (),
        report: Report | None = None,
    ):
        self.uri = os.fspath(uri)
        #: What the job that returned this table did; None for a table that was opened.
        self.report = report
        self._devices = [devices] if isinstance(devices, str) else list(devices)
        self._native = _polylance.Table(self.uri, model, trust_table_model, reranker, self._devices)

    def search(
        self,
        query: str | None = None,
        k: int = 10,
        *,
        where: str | None = None,
        vector: Sequence[float] | None = None,
        like: str | tuple[str, int] | None = None,
        mode: str | None = None,
        by_document: bool = False,
        fusion: str | None = None,
        weight: float | None = None,
        rerank: bool = False,
        columns: Sequence[str] | None = None,
    ) -> Rows:
        """The best rows for a query in any language, best first; the last columns are the scores.

        where
            A SQL condition on the table's columns, applied before the search.
        vector, like
            Instead of a query: a vector by the table's model, or a document (and its chunk) to find similar ones.
        mode
            "vector", "text" or "hybrid"; by default hybrid where the text is indexed, else vector.
        by_document
            One hit per document: its best chunk.
        fusion, weight
            How a hybrid search combines its rankings: "score", "rrf" or "weighted".
        rerank
            Order the best candidates by the table's `reranker`.
        """
        if isinstance(like, str):
            like = (like, 0)
        found = self._native.search(
            query,
            None if vector is None else [float(value) for value in vector],
            like,
            k,
            where,
            mode,
            by_document,
            fusion,
            weight,
            rerank,
            None if columns is None else list(columns),
        )
        return Rows(found)

    def sql(self, statement: str, **tables: str | os.PathLike[str]) -> Rows:
        """The rows of a query. The table is called like its file (`docs.lance` is `docs`); keywords name others."""
        named = [("", self.uri), *((name, os.fspath(uri)) for name, uri in tables.items())]
        return Rows(self._native.sql(statement, named))

    def annotate(
        self,
        column: str,
        *,
        task: str,
        model: str,
        devices: str | Sequence[str] = (),
        progress: bool | bars.Function | None = None,
        **options: Any,
    ) -> Report:
        """Fills a column with what a head returns, for the rows that lack it. `options` are those of the task, as in
        `[[annotate]]` of a pipeline file: `labels=["sport", "economy"]`, `aggregation="first"`."""
        described = json.dumps({"name": column, "task": task, "model": model, **options})
        on = [devices] if isinstance(devices, str) else list(devices) or self._devices
        with bars.shown(progress) as called:
            return Report(_polylance.annotate(self.uri, described, on, called))

    def describe(self) -> Mapping[str, Any]:
        """Columns, contract, indices and versions, without reading a row."""
        return json.loads(self._native.describe())

    def __len__(self) -> int:
        return self.describe()["rows"]

    def __repr__(self) -> str:
        return f"<polylance.Table {self.uri}>"
