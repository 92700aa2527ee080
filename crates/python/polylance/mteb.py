"""mteb: `Model` for `mteb.evaluate`. Needs `mteb`."""

from __future__ import annotations

import os
from typing import Any

from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction

from .encoder import BUILTIN, Encoder


class Model(AbsEncoder):
    """A polylance model, with its prompts for queries and documents where a task distinguishes them.

    Args:
        model: An `Encoder`, or the model of one.
        options: Those of `Encoder`.
    """

    def __init__(self, model: Encoder | str = BUILTIN, revision: str | None = None, **options: Any):
        options.pop("device", None)
        self.model = model if isinstance(model, Encoder) else Encoder(model, **options)
        name = self.model.name.removeprefix("builtin:")
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": name if name.count("/") == 1 else f"polylance/{os.path.basename(name)}",
                "revision": revision or "no_revision",
                "max_tokens": self.model.max_seq_length,
                "embed_dim": self.model.get_sentence_embedding_dimension(),
                "similarity_fn_name": ScoringFunction.COSINE,
            }
        )

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **options: Any,
    ) -> Any:
        """The vectors of all texts of a loader."""
        texts = [text for batch in inputs for text in batch["text"]]
        prompt_name = None if prompt_type is None else str(getattr(prompt_type, "value", prompt_type))
        return self.model.encode(
            texts, prompt_name=prompt_name, show_progress_bar=options.get("show_progress_bar", False)
        )
