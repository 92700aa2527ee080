"""LangChain's vector stores with a polylance model."""

import asyncio

from conftest import TEXTS
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

import polylance.langchain


def test_a_vector_store_finds_texts_in_other_languages(encoder):
    embeddings = polylance.langchain.Embeddings(encoder)
    assert isinstance(embeddings, Embeddings)
    store = InMemoryVectorStore.from_texts(list(TEXTS.values()), embeddings, ids=list(TEXTS))
    assert store.similarity_search("chauffer une maison sans gaz", k=1)[0].id == "d"
    found = asyncio.run(store.asimilarity_search("the right to education", k=2))
    assert {document.id for document in found} == {"a", "e"}


def test_queries_and_documents_have_their_prompts(encoder):
    embeddings = polylance.langchain.Embeddings(encoder)
    assert embeddings.embed_query("x") == encoder.encode("query: x").tolist()
    assert embeddings.embed_documents(["x"]) == encoder.encode(["passage: x"]).tolist()
    assert embeddings.embed_documents([]) == []
    assert polylance.langchain.Embeddings(max_tokens=16).encoder.max_seq_length == 16
