"""Embeddings, labels and entity spans of a text corpus in 100 languages, in a searchable Lance table.

    import polylance

    table = polylance.embed(df, text="body", table="docs.lance")
    table.search("heat pumps in old houses", k=5, where="year >= 2020").to_pandas()
    table.sql("SELECT lang, count(*) FROM docs GROUP BY lang").to_polars()

A source is a path, an address (s3://, gs://, az://, https://), a pipeline file, or any object with an Arrow stream: a
DataFrame of pandas or polars, a relation of DuckDB, a table of PyArrow, a dataset of Hugging Face. Running a job again
over the same texts embeds nothing.

`polylance.lancedb`, `polylance.langchain`, `polylance.bertopic` and `polylance.mteb` connect the models to these
libraries.
"""

from importlib.metadata import version as _version

from . import _model
from .encoder import Encoder
from .errors import PolylanceError, UsageError
from .jobs import embed, run
from .progress import Progress
from .report import Report
from .rows import Rows
from .table import Table

_model.use_package()

__version__ = _version("polylance")
__all__ = ["Encoder", "PolylanceError", "Progress", "Report", "Rows", "Table", "UsageError", "embed", "run"]
