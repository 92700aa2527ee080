"""BERTopic: `Embedder` for `BERTopic(embedding_model=...)`. Needs `bertopic`."""

from __future__ import annotations

from typing import Any

from bertopic.backend import BaseEmbedder

from .encoder import BUILTIN, Encoder


class Embedder(BaseEmbedder):
    """Vectors of documents and words by a polylance model.

    Args:
        model: An `Encoder`, or the model of one.
        options: Those of `Encoder`.
    """

    def __init__(self, model: Encoder | str = BUILTIN, **options: Any):
        super().__init__(embedding_model=model if isinstance(model, Encoder) else Encoder(model, **options))

    def embed(self, documents: list[str], verbose: bool = False) -> Any:
        """A vector for each text, with the prompt for documents."""
        return self.embedding_model.encode_document(documents, show_progress_bar=verbose)
