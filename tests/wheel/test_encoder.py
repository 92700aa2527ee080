"""The encoder has the methods of a model of sentence-transformers."""

import concurrent.futures
import inspect

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import polylance

# The parameters of SentenceTransformer.encode that versions 5 and 6 of sentence-transformers have.
PARAMETERS = [
    "prompt_name", "prompt", "batch_size", "show_progress_bar", "output_value", "precision", "convert_to_numpy",
    "convert_to_tensor", "device", "normalize_embeddings", "truncate_dim", "pool", "chunk_size",
]  # fmt: skip


def test_parameters_are_those_of_sentence_transformers_in_their_order():
    first, *others = [name for name in inspect.signature(polylance.Encoder.encode).parameters if name != "self"]
    assert first == "sentences" and others[: len(PARAMETERS)] == PARAMETERS and others[-1] == "inputs"


def test_shapes_are_those_of_sentence_transformers(encoder):
    many = encoder.encode(["one", "two"])
    assert many.shape == (2, 384) and many.dtype == np.float32
    one = encoder.encode("one")
    assert one.shape == (384,)
    np.testing.assert_array_equal(one, many[0])
    assert encoder.encode([]).shape == (0, 384)
    assert encoder.get_sentence_embedding_dimension() == encoder.get_embedding_dimension() == 384
    assert encoder.max_seq_length == encoder.get_max_seq_length() == 512
    arrays = encoder.encode(["one", "two"], convert_to_numpy=False)
    assert isinstance(arrays, list) and arrays[1].shape == (384,)
    assert encoder.encode(inputs=["one"], batch_size=7, device="cpu").shape == (1, 384)


@pytest.mark.parametrize("kind", [tuple, np.array, pd.Series, pl.Series, pa.array, iter])
def test_texts_of_every_container(encoder, kind):
    texts = ["one", "zwei", "三"]
    np.testing.assert_array_equal(encoder.encode(kind(texts)), encoder.encode(texts))


def test_what_is_no_text_is_refused_and_not_converted(encoder):
    with pytest.raises(polylance.UsageError, match="the one at 1 is of type NoneType"):
        encoder.encode(["one", None])
    with pytest.raises(polylance.UsageError, match="of type float"):
        encoder.encode([1.5])
    with pytest.raises(UnicodeEncodeError):
        encoder.encode(["\ud800"])
    with pytest.raises(polylance.UsageError, match="needs a text"):
        encoder.encode()


def test_what_cannot_be_computed_is_refused(encoder):
    with pytest.raises(polylance.UsageError, match="precision='int8'"):
        encoder.encode("x", precision="int8")
    with pytest.raises(polylance.UsageError, match="token_embeddings"):
        encoder.encode("x", output_value="token_embeddings")
    with pytest.raises(TypeError, match="normalized"):
        encoder.encode("x", normalized=True)


def test_a_vector_does_not_depend_on_its_neighbours(encoder):
    texts = [f"text {number} " + "word " * (number % 7) for number in range(530)]
    together = encoder.encode(texts)
    chosen = [0, 511, 512, 529]
    np.testing.assert_array_equal(together[chosen], encoder.encode([texts[index] for index in chosen]))


def test_prompts_are_added_when_a_call_names_them(encoder):
    plain, query = encoder.encode("x"), encoder.encode("x", prompt="query: ")
    assert not np.array_equal(plain, query)
    np.testing.assert_array_equal(encoder.encode_query("x"), query)
    np.testing.assert_array_equal(encoder.encode("x", "query"), query)
    np.testing.assert_array_equal(encoder.encode("query: x"), query)
    np.testing.assert_array_equal(encoder.encode_document(["x"])[0], encoder.encode("x", prompt_name="passage"))
    np.testing.assert_array_equal(encoder.encode_query("x", prompt_name="passage"), encoder.encode("passage: x"))
    np.testing.assert_array_equal(encoder.encode_query("x", prompt=""), plain)
    with pytest.raises(polylance.UsageError, match="no prompt is named 'other'") as raised:
        encoder.encode("x", prompt_name="other")
    assert "query, passage" in raised.value.hint


def test_vectors_are_truncated_and_normalized_on_request(encoder):
    whole, short = encoder.encode("x"), encoder.encode("x", truncate_dim=64)
    np.testing.assert_array_equal(whole[:64], short)
    assert np.linalg.norm(short) < 0.99
    assert np.linalg.norm(encoder.encode("x", truncate_dim=64, normalize_embeddings=True)) == pytest.approx(1, abs=1e-6)


def test_similarity_crosses_languages(encoder):
    queries = encoder.encode_query(["the right to education"])
    documents = encoder.encode_document(["すべて人は、教育を受ける権利を有する。", "Les vieilles maisons sont froides."])
    cosines = encoder.similarity(queries, documents)
    assert cosines.shape == (1, 2) and cosines[0, 0] > cosines[0, 1]
    np.testing.assert_allclose(encoder.similarity_pairwise(documents, documents), [1, 1], atol=1e-6)


def test_long_texts_are_truncated_at_the_limit(encoder):
    short = polylance.Encoder(max_tokens=16)
    assert short.max_seq_length == 16
    text = "all human beings are born free and equal in dignity and rights " * 3
    assert not np.array_equal(short.encode(text), encoder.encode(text))
    np.testing.assert_array_equal(short.encode(text), short.encode(text + "and more"))
    with pytest.raises(polylance.UsageError, match="from 8 to 512"):
        polylance.Encoder(max_tokens=513)


def test_wrong_names_are_errors_with_hints():
    with pytest.raises(polylance.UsageError):
        polylance.Encoder(dtype="f31")
    with pytest.raises(polylance.UsageError):
        polylance.Encoder("builtin:other")
    with pytest.raises(polylance.PolylanceError, match="gpu"):
        polylance.Encoder(devices="gpu")


def test_an_encoder_is_used_from_many_threads(encoder):
    texts = [f"text {number}" for number in range(32)]
    expected = encoder.encode(texts)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        np.testing.assert_array_equal(np.stack(list(threads.map(encoder.encode, texts))), expected)
