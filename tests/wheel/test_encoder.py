"""The encoder where people pass a model of sentence-transformers."""

import numpy as np
import pytest

import polylance


@pytest.fixture(scope="module")
def encoder() -> polylance.Encoder:
    return polylance.Encoder()


def test_encode_has_the_shapes_of_sentence_transformers(encoder):
    many = encoder.encode(["one", "two"])
    assert many.shape == (2, 384) and many.dtype == np.float32
    one = encoder.encode("one")
    assert one.shape == (384,)
    np.testing.assert_array_equal(one, many[0])
    assert encoder.encode([]).shape == (0, 384)
    assert encoder.get_sentence_embedding_dimension() == 384


def test_a_vector_does_not_depend_on_its_neighbours(encoder):
    texts = [f"text number {number} " + "word " * (number % 50) for number in range(1100)]
    together = encoder.encode(texts)
    np.testing.assert_array_equal(together[[0, 511, 512, 1099]], encoder.encode([texts[i] for i in (0, 511, 512, 1099)]))


def test_prompts_are_added_when_a_call_names_them(encoder):
    np.testing.assert_array_equal(encoder.encode_query("x"), encoder.encode("x", prompt="query: "))
    np.testing.assert_array_equal(encoder.encode("x", prompt_name="passage"), encoder.encode("passage: x"))
    with pytest.raises(ValueError, match="no prompt is named 'other'"):
        encoder.encode("x", prompt_name="other")


def test_similarity_crosses_languages(encoder):
    queries = encoder.encode_query(["the right to education"])
    documents = encoder.encode_document(["すべて人は、教育を受ける権利を有する。", "Les vieilles maisons sont froides."])
    near, far = encoder.similarity(queries, documents)[0]
    assert near > far
    assert len(encoder.embed_query("x")) == 384 and len(encoder.embed_documents(["x", "y"])) == 2
