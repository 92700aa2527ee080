"""BERTopic's light installation with a polylance model."""

import numpy as np
import pytest
from bertopic import BERTopic
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

import polylance
import polylance.bertopic

RIGHTS = [f"Everyone has the right to {right}." for right in ("education", "rest", "work", "leisure", "asylum", "vote")]
HOUSES = [f"The old house has a new {thing}." for thing in ("roof", "door", "kitchen", "heat pump", "window", "stove")]


def topics(encoder: polylance.Encoder) -> BERTopic:
    # No random reduction, and two topics: the vectors alone decide.
    return BERTopic(
        embedding_model=polylance.bertopic.Embedder(encoder), umap_model=PCA(2), hdbscan_model=KMeans(2, random_state=0)
    )


def test_topics_of_two_subjects_are_found(encoder):
    found, _ = topics(encoder).fit_transform(RIGHTS + HOUSES)
    assert len(set(found[: len(RIGHTS)])) == 1 and len(set(found[len(RIGHTS) :])) == 1 and found[0] != found[-1]


def test_new_documents_in_other_languages_join_their_topic(encoder):
    model = topics(encoder)
    found, _ = model.fit_transform(RIGHTS + HOUSES)
    joined, _ = model.transform(["Toute personne a droit au travail.", "La vieille maison a une nouvelle fenêtre."])
    assert list(joined) == [found[0], found[-1]]
    similar, _ = model.find_topics("windows and doors", top_n=1)
    assert similar == [found[-1]]


def test_an_embedder_has_the_vectors_of_documents(encoder):
    np.testing.assert_array_equal(polylance.bertopic.Embedder(encoder).embed(RIGHTS), encoder.encode_document(RIGHTS))
    with pytest.raises(polylance.UsageError):
        polylance.bertopic.Embedder("builtin:other")
