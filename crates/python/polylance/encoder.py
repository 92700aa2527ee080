"""Texts to vectors, without a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _polylance, progress as bars

#: The model that the package carries.
BUILTIN = "builtin:multilingual-e5-small"


class Encoder:
    """A model on its devices. `encode` takes what `SentenceTransformer.encode` takes, so that an encoder goes where a
    model of sentence-transformers goes: BERTopic, mteb, LangChain.

    Prompts are never added unless a call names one: `prompt_name="query"`, or `encode_query` and `encode_document`.
    """

    def __init__(
        self,
        model: str = BUILTIN,
        *,
        devices: str | Sequence[str] = (),
        dtype: str | None = None,
        max_tokens: int | None = None,
    ):
        devices = [devices] if isinstance(devices, str) else list(devices)
        self._native = _polylance.Encoder(model, devices, dtype, max_tokens)
        query, passage = self._native.prompts
        #: The model's own prompts by name.
        self.prompts = {"query": query, "passage": passage, "document": passage}

    @property
    def name(self) -> str:
        """The model's name."""
        return self._native.name

    @property
    def max_seq_length(self) -> int:
        """Tokens of an input at most; a longer one is cut there."""
        return self._native.max_tokens

    def get_sentence_embedding_dimension(self) -> int:
        """Dimensions of a vector."""
        return self._native.dim

    get_embedding_dimension = get_sentence_embedding_dimension

    def encode(
        self,
        sentences: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str = "sentence_embedding",
        precision: str = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        **_others: Any,
    ) -> Any:
        """The vectors of texts, `[texts, dimensions]`, or of one text, `[dimensions]`.

        `batch_size` and `device` have no effect: batches are made by tokens, on the encoder's devices.
        """
        if output_value != "sentence_embedding" or precision != "float32":
            raise ValueError("only sentence embeddings in float32 are returned")
        single = isinstance(sentences, str)
        texts = [sentences] if single else [str(text) for text in sentences]
        if prompt is None and prompt_name is not None:
            try:
                prompt = self.prompts[prompt_name]
            except KeyError:
                raise ValueError(f"no prompt is named {prompt_name!r}: there are {', '.join(self.prompts)}") from None
        with bars.shown(show_progress_bar or False) as called:
            counted = called and (lambda done: called("encode", done, len(texts), done))
            vectors = self._native.encode(texts, prompt or "", counted)
        if normalize_embeddings:
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
        result = vectors[0] if single else vectors
        if convert_to_tensor:
            import torch

            return torch.from_numpy(result)
        return result if convert_to_numpy else list(result)

    def encode_query(self, sentences: str | Sequence[str], **options: Any) -> Any:
        """`encode` with the model's prompt for queries."""
        return self.encode(sentences, prompt_name="query", **options)

    def encode_document(self, sentences: str | Sequence[str], **options: Any) -> Any:
        """`encode` with the model's prompt for passages."""
        return self.encode(sentences, prompt_name="document", **options)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """LangChain's interface."""
        return self.encode_document(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        """LangChain's interface."""
        return self.encode_query(text).tolist()

    def similarity(self, a: Any, b: Any) -> Any:
        """The cosine of each pair, `[len(a), len(b)]`."""
        a, b = np.atleast_2d(np.asarray(a)), np.atleast_2d(np.asarray(b))
        a = a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        b = b / np.maximum(np.linalg.norm(b, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return a @ b.T

    def __repr__(self) -> str:
        return f"<polylance.Encoder {self.name}>"
