"""Embeddings, labels and entity spans of a text corpus in 100 languages, in a searchable Lance table.

    import polylance

    table = polylance.embed(df, text="body", id="url", table="docs.lance")
    table.search("heat pumps in old houses", k=5, where="year >= 2020").to_pandas()
    table.sql("SELECT lang, count(*) FROM docs GROUP BY lang").to_polars()

Sources are paths, addresses (s3://, gs://, az://, https://) or anything that speaks the Arrow PyCapsule interface: data
frames of pandas and polars, relations of duckdb, tables of pyarrow, datasets of Hugging Face. Running a job again over the
same texts embeds nothing.
"""

from .encoder import Encoder
from .errors import PolylanceError, UsageError
from .jobs import embed, run
from .report import Report
from .rows import Rows
from .table import Table

__all__ = ["Encoder", "PolylanceError", "Report", "Rows", "Table", "UsageError", "embed", "run"]
