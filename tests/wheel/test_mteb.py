"""mteb with a polylance model, on two small tasks that are made here. `requirements-mteb.txt` installs mteb."""

import mteb
import pytest
from conftest import TEXTS
from datasets import Dataset, DatasetDict
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.models_protocols import EncoderProtocol

import polylance.mteb


def metadata(name: str, kind: str, score: str) -> TaskMetadata:
    return TaskMetadata(
        name=name, description=name, reference=None, type=kind, category="t2t", modalities=["text"],
        eval_splits=["test"], eval_langs=["mul-Latn"], main_score=score, date=("1948-12-10", "1948-12-10"),
        dataset={"path": "made/here", "revision": "1"}, domains=[], task_subtypes=[], license="not specified",
        annotations_creators="derived", dialect=[], sample_creation="created", bibtex_citation="",
    )  # fmt: skip


class Similarity(AbsTaskSTS):
    metadata = metadata("PolylanceSimilarity", "STS", "cosine_spearman")
    min_score, max_score = 0, 5

    def load_data(self, **_: object) -> None:
        pairs = [("a", "e", 5.0), ("a", "b", 3.0), ("c", "a", 0.0), ("d", "d", 5.0), ("d", "b", 0.0), ("c", "d", 2.0)]
        rows = [{"sentence1": TEXTS[one], "sentence2": TEXTS[two], "score": score} for one, two, score in pairs]
        self.dataset = DatasetDict(test=Dataset.from_list(rows))
        self.data_loaded = True


class Retrieval(AbsTaskRetrieval):
    metadata = metadata("PolylanceRetrieval", "Retrieval", "ndcg_at_10")

    def load_data(self, **_: object) -> None:
        queries = {"q1": "heat pumps in old houses", "q2": "le droit à l'éducation"}
        split = {
            "corpus": Dataset.from_list([{"id": id, "title": "", "text": text} for id, text in TEXTS.items()]),
            "queries": Dataset.from_list([{"id": id, "text": text} for id, text in queries.items()]),
            "relevant_docs": {"q1": {"d": 1}, "q2": {"a": 1, "e": 1}},
            "top_ranked": None,
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


@pytest.mark.parametrize("task", [Similarity, Retrieval])
def test_a_task_is_evaluated(task, encoder):
    model = polylance.mteb.Model(encoder)
    assert isinstance(model, EncoderProtocol)
    (result,) = mteb.evaluate(model, [task()], cache=None, show_progress_bar=False).task_results
    assert result.get_score() > 0.9
