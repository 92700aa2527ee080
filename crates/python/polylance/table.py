"""Tables: search, SQL and annotation."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from . import _polylance
from .encoder import Encoder
from .progress import ProgressFunction, shown
from .report import Report
from .rows import Rows


class Table:
    """A table that polylance made. Opening it reads nothing: every search and query reads the latest version.

    Args:
        uri: The address of the table: a path, `s3://`, `gs://` or `az://`.
        model: The present place of the table's model, if it has moved or was never used on this machine.
        trust_table_model: Fetch and load any model that the table names. Only for tables whose author you trust.
        reranker: A cross-encoder for searches with `rerank=True`: a folder, local or at s3://, gs:// or az://, or a
            hub id.
        devices: Devices for queries and annotations, as in `model.devices` of a pipeline file.
    """

    def __init__(
        self,
        uri: str | os.PathLike[str],
        *,
        model: str | os.PathLike[str] | None = None,
        trust_table_model: bool = False,
        reranker: str | os.PathLike[str] | None = None,
        devices: str | Sequence[str] = (),
    ):
        self.uri = os.fspath(uri)
        #: The report of the job that returned this table; None for a table that was opened.
        self.report: Report | None = None
        self._devices = [devices] if isinstance(devices, str) else list(devices)
        self._native = _polylance.Table(
            self.uri,
            None if model is None else os.fspath(model),
            trust_table_model,
            None if reranker is None else os.fspath(reranker),
            self._devices,
        )

    def search(
        self,
        query: str | None = None,
        k: int = 10,
        *,
        where: str | None = None,
        vector: Sequence[float] | None = None,
        like: str | tuple[str, int] | None = None,
        mode: Literal["vector", "text", "hybrid"] | None = None,
        by_document: bool = False,
        fusion: Literal["score", "rrf", "weighted"] | None = None,
        weight: float | None = None,
        rerank: bool = False,
        columns: Sequence[str] | None = None,
    ) -> Rows:
        """The `k` best rows for a query in any language, best first; the last columns are their scores.

        Args:
            query: A text. It is embedded by the table's model, with the table's settings.
            k: Maximum number of rows.
            where: A SQL condition on the table's columns, applied before the search.
            vector: Instead of a query: a vector of the table's model.
            like: Instead of a query: a document's id, or its id and a chunk, to find similar rows.
            mode: By default hybrid if the text is indexed, else vector.
            by_document: Return only the best chunk of each document.
            fusion: How a hybrid search combines its two rankings.
            weight: The weight of the vector search in that combination, from 0 to 1.
            rerank: Order the best candidates with the table's `reranker`.
            columns: Columns to return, instead of all but the vectors.
        """
        found = self._native.search(
            query,
            None if vector is None else [float(value) for value in vector],
            (like, 0) if isinstance(like, str) else like,
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
        """The rows of a SQL query. The table's name is that of its folder (`docs.lance` is `docs`); keywords add other
        tables by name: `table.sql("SELECT … FROM docs JOIN other …", other="other.lance")`."""
        named = [("", self.uri), *((name, os.fspath(uri)) for name, uri in tables.items())]
        return Rows(self._native.sql(statement, named))

    def annotate(
        self,
        column: str,
        *,
        task: str,
        model: str | os.PathLike[str],
        devices: str | Sequence[str] = (),
        progress: bool | ProgressFunction | None = None,
        **options: Any,
    ) -> Report:
        """Fills a column with the output of a head, in the rows that lack it, and returns the report.

        Args:
            column: The column; a column of a different head is rebuilt.
            task: "classify", "zero-shot", "ner", "qa", "fill-mask", "generate" or "choose".
            model: The model with its head: a folder, local or at s3://, gs:// or az://, or a hub id.
            devices: Devices instead of the table's.
            progress: As for `polylance.embed`.
            options: Keys of the task, as in `[[annotate]]` of a pipeline file: `labels=["sport", "economy"]`,
                `aggregation="first"`.
        """
        described = {"name": column, "task": task, "model": os.fspath(model), **options}
        named = [devices] if isinstance(devices, str) else list(devices)
        with shown(progress) as function:
            filled = _polylance.annotate(self.uri, json.dumps(described), named or self._devices, function)
        return Report._parse(filled)

    def encoder(self) -> Encoder:
        """The table's model with the table's settings: its vectors can be compared with those in the table."""
        return Encoder._of(_polylance.Encoder.of_table(self._native))

    def describe(self) -> Mapping[str, Any]:
        """Columns, contract, indices and versions, as `polylance show --json` prints them. No row is read."""
        described: dict[str, Any] = json.loads(self._native.describe())
        return described

    def __len__(self) -> int:
        return int(self.describe()["rows"])

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<polylance.Table {self.uri}>"
