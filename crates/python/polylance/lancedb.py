"""LanceDB: the embedding function "polylance" of its registry. Needs `lancedb`.

    import lancedb, polylance.lancedb
    from lancedb.pydantic import LanceModel, Vector

    function = polylance.lancedb.EmbeddingFunction.create()

    class Document(LanceModel):
        text: str = function.SourceField()
        vector: Vector(function.ndims()) = function.VectorField()

A process that only opens such a table imports `polylance.lancedb` first, so that LanceDB finds the function.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import lancedb.embeddings as _embeddings

from .encoder import BUILTIN, Encoder
from .table import Table


@_embeddings.register("polylance")
class EmbeddingFunction(_embeddings.TextEmbeddingFunction):
    """Vectors of a polylance model, with its prompts for queries and passages.

    LanceDB stores these settings in the metadata of the table:

    Attributes:
        model: As for `polylance.Encoder`.
        dtype: As for `polylance.Encoder`.
        max_tokens: As for `polylance.Encoder`.
        query_prompt: Before every query; the model's prompt by default.
        passage_prompt: Before every text of the table; the model's prompt by default.
        table: Instead of a model: the address of a table of polylance whose model, prompts and dtype are used.
    """

    model: str = BUILTIN
    dtype: str | None = None
    max_tokens: int | None = None
    query_prompt: str | None = None
    passage_prompt: str | None = None
    table: str | None = None

    def ndims(self) -> int:
        """Dimensions of a vector."""
        return self._encoder().get_sentence_embedding_dimension()

    def compute_query_embeddings(self, query: str, *args: Any, **kwargs: Any) -> list[Any]:
        """The vector of a query."""
        return list(self._encoder().encode_query(self.sanitize_input(query), prompt=self.query_prompt))

    def generate_embeddings(self, texts: Any, *args: Any, **kwargs: Any) -> list[Any]:
        """A vector for each text of the table."""
        return list(self._encoder().encode_document(list(texts), prompt=self.passage_prompt))

    def _encoder(self) -> Encoder:
        return _opened(self.model, self.dtype, self.max_tokens, self.table)


@lru_cache(maxsize=4)
def _opened(model: str, dtype: str | None, max_tokens: int | None, table: str | None) -> Encoder:
    """The encoder of these settings: LanceDB creates functions of the same settings again and again."""
    if table is not None:
        return Table(os.fspath(table)).encoder()
    return Encoder(model, dtype=dtype, max_tokens=max_tokens)
