"""LangChain: `Embeddings` for its vector stores. Needs `langchain-core`."""

from __future__ import annotations

from typing import Any

from langchain_core.embeddings import Embeddings as _Embeddings

from .encoder import BUILTIN, Encoder


class Embeddings(_Embeddings):
    """Vectors of a polylance model, with the model's prompts for queries and documents.

    Args:
        model: An `Encoder`, or the model of one.
        options: Those of `Encoder`.
    """

    def __init__(self, model: Encoder | str = BUILTIN, **options: Any):
        self.encoder = model if isinstance(model, Encoder) else Encoder(model, **options)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector for each text, with the prompt for documents."""
        vectors: list[list[float]] = self.encoder.encode_document(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query, with the prompt for queries."""
        vector: list[float] = self.encoder.encode_query(text).tolist()
        return vector
