"""Texts to vectors, without a table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _optional, _polylance
from .errors import UsageError
from .progress import shown

#: The model in the package.
BUILTIN = "builtin:multilingual-e5-small"

_Texts = str | Sequence[str] | Iterable[str]


class Encoder:
    """A model on its devices, with the methods of `sentence_transformers.SentenceTransformer` that compute vectors.

    Prompts are added only if a call names them: `prompt_name="query"`, or by `encode_query` and `encode_document`. An
    encoder can be used from several threads.

    Args:
        model: `builtin:multilingual-e5-small`, a folder or a GGUF file, local or at s3://, gs:// or az://, or a hub id
            such as `intfloat/multilingual-e5-large`.
        devices: As in `model.devices` of a pipeline file: "cpu", "cuda:0"; all GPUs by default, or all cores.
        dtype: "f32", "bf16", "f16" or "int8"; the fastest accurate one of the devices by default.
        max_tokens: Maximum number of tokens in an input; a longer one is truncated. The model's limit by default.
        memory: Maximum memory for the weights on the CPU, in bytes or as "4GiB". The layers of a larger model are
            streamed from their files, with the same vectors. Three quarters of the available memory by default.
    """

    #: As in sentence-transformers: the similarity of two vectors.
    similarity_fn_name = "cosine"
    #: As in sentence-transformers: no prompt is added by itself.
    default_prompt_name = None

    def __init__(
        self,
        model: str | os.PathLike[str] = BUILTIN,
        *,
        devices: str | Sequence[str] = (),
        dtype: str | None = None,
        max_tokens: int | None = None,
        memory: int | str | None = None,
    ):
        devices = [devices] if isinstance(devices, str) else list(devices)
        limit = None if memory is None else str(memory)
        self._native = _polylance.Encoder(os.fspath(model), devices, dtype, max_tokens, limit)

    @classmethod
    def _of(cls, native: _polylance.Encoder) -> Encoder:
        encoder = cls.__new__(cls)
        encoder._native = native
        return encoder

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._native.name

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts of the model by name: "query", "passage" and "document"; the last two are the same."""
        query, passage = self._native.prompts
        return {"query": query, "passage": passage, "document": passage}

    @property
    def max_seq_length(self) -> int:
        """Maximum number of tokens in an input, prompt and special tokens included; a longer one is truncated."""
        return self._native.max_tokens

    def get_max_seq_length(self) -> int:
        """`max_seq_length`, as sentence-transformers also names it."""
        return self._native.max_tokens

    def get_sentence_embedding_dimension(self) -> int:
        """Dimensions of a vector."""
        return self._native.dim

    get_embedding_dimension = get_sentence_embedding_dimension

    def encode(
        self,
        sentences: _Texts | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: Any = None,
        chunk_size: int | None = None,
        *,
        inputs: _Texts | None = None,
    ) -> Any:
        """The vectors of texts, `[texts, dimensions]`, or of one text, `[dimensions]`, as float32.

        `inputs` is another name of `sentences`. `batch_size`, `device`, `pool` and `chunk_size` have no effect: batches
        are made by tokens, on the encoder's devices. Without `convert_to_numpy` the result is a list of arrays.
        """
        if output_value != "sentence_embedding" or precision != "float32":
            found = f"output_value={output_value!r}, precision={precision!r}"
            raise UsageError(f"encode() returns sentence embeddings in float32, found {found}")
        given = sentences if inputs is None else inputs
        if given is None:
            raise UsageError("encode() needs a text or a list of texts")
        single = isinstance(given, str)
        texts = [str(given)] if isinstance(given, str) else _list_of_texts(given)
        prefix = self._prompt(prompt_name) if prompt is None else prompt
        with shown(bool(show_progress_bar)) as function:
            vectors: npt.NDArray[np.float32] = self._native.encode(texts, prefix, function)
        if truncate_dim is not None:
            vectors = np.ascontiguousarray(vectors[:, :truncate_dim])
        if normalize_embeddings:
            vectors = _normalized(vectors)
        if convert_to_tensor:
            tensor = _optional.load("torch", "convert_to_tensor").from_numpy(vectors)
            return tensor[0] if single else tensor
        if single:
            return vectors[0]
        return vectors if convert_to_numpy else list(vectors)

    def encode_query(self, sentences: _Texts | None = None, *arguments: Any, **options: Any) -> Any:
        """`encode` with the model's prompt for queries, unless another one is given."""
        return self._encode_as("query", sentences, *arguments, **options)

    def encode_document(self, sentences: _Texts | None = None, *arguments: Any, **options: Any) -> Any:
        """`encode` with the model's prompt for documents, unless another one is given."""
        return self._encode_as("document", sentences, *arguments, **options)

    def _encode_as(
        self, role: str, sentences: _Texts | None, prompt_name: str | None = None, *arguments: Any, **options: Any
    ) -> Any:
        return self.encode(sentences, prompt_name or role, *arguments, **options)

    def _prompt(self, name: str | None) -> str:
        if name is None:
            return ""
        try:
            return self.prompts[name]
        except KeyError:
            raise UsageError(f"no prompt is named {name!r}", f"the prompts are {', '.join(self.prompts)}") from None

    def similarity(self, embeddings1: Any, embeddings2: Any) -> npt.NDArray[np.float32]:
        """The cosine of each vector of the first with each of the second, `[first, second]`."""
        first, second = (_normalized(np.atleast_2d(np.asarray(some))) for some in (embeddings1, embeddings2))
        cosines: npt.NDArray[np.float32] = first @ second.T
        return cosines

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> npt.NDArray[np.float32]:
        """The cosines of the first vectors, the second vectors, and so on."""
        first, second = (_normalized(np.atleast_2d(np.asarray(some))) for some in (embeddings1, embeddings2))
        cosines: npt.NDArray[np.float32] = (first * second).sum(axis=1)
        return cosines

    def __repr__(self) -> str:
        return f"<polylance.Encoder {self.name}>"


def _list_of_texts(given: Iterable[Any]) -> list[str]:
    # The values of an Arrow array are objects of their own, until it becomes a list.
    texts = given.to_pylist() if hasattr(given, "to_pylist") else list(given)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise UsageError(f"encode() takes texts, and the one at {index} is of type {type(text).__name__}")
    return texts


def _normalized(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    normalized: npt.NDArray[np.float32] = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
    return normalized
