"""Writes goldens.json: entity scores of seqeval, entities of every tag scheme, and class scores of scikit-learn.

    python make.py          # seqeval 1.2, scikit-learn

Sentences are random, with tags that break their scheme among them: those are counted, not refused.
"""

import json
import math
import random
import warnings
from importlib.metadata import version
from pathlib import Path

from seqeval.metrics import classification_report
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, Entities
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

KINDS = ["PER", "LOC", "geo-loc"]
SCHEMES = {"IOB1": IOB1, "IOB2": IOB2, "IOBES": IOBES, "BILOU": BILOU}


def rounded(value):
    """None where seqeval has a mean of nothing: no entity is there and none was found."""
    return None if math.isnan(value) else round(float(value), 12)


def any_tags(rng, length, kinds):
    return [rng.choice(["O", "O"] + [f"{mark}-{kind}" for mark in "BI" for kind in kinds]) for _ in range(length)]


def changed(rng, tags, kinds):
    """The tags with a few others, as a tagger that is mostly right finds them."""
    return [rng.choice(any_tags(rng, 1, kinds)) if rng.random() < 0.25 else tag for tag in tags]


def scores(rng, kinds, sentences):
    right = [any_tags(rng, rng.randint(1, 12), kinds) for _ in range(sentences)]
    found = [changed(rng, tags, kinds) for tags in right]
    return score(right, found)


def score(right, found):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = classification_report(right, found, output_dict=True, zero_division=0)
    keys = {"precision": "precision", "recall": "recall", "f1": "f1-score", "entities": "support"}
    rows = {kind: {ours: rounded(row[theirs]) for ours, theirs in keys.items()} for kind, row in report.items()}
    rows.pop("weighted avg")
    micro, macro = rows.pop("micro avg"), rows.pop("macro avg")
    return {"right": right, "found": found, "micro": micro, "macro_f1": macro["f1"], "kinds": rows}


def entities(rng, length):
    """Entities that do not overlap, some of them side by side and of one kind."""
    made, at = [], 0
    while at < length:
        if rng.random() < 0.5:
            end = min(length, at + rng.randint(1, 4))
            made.append((rng.choice(KINDS[:2] if rng.random() < 0.7 else KINDS), at, end))
            at = end
        else:
            at += 1
    return made


def in_scheme(scheme, length, made):
    tags = ["O"] * length
    for kind, start, end in made:
        for at in range(start, end):
            first, last = at == start, at == end - 1
            if scheme == "IOB1":
                # `B-` only where the word before is of another entity of this kind.
                beside = any(other == kind and stop == start for other, _, stop in made)
                mark = "B" if first and beside else "I"
            elif scheme == "IOB2":
                mark = "B" if first else "I"
            else:
                single, end_mark = ("S", "E") if scheme == "IOBES" else ("U", "L")
                mark = single if first and last else "B" if first else end_mark if last else "I"
            tags[at] = f"{mark}-{kind}"
    return tags


def schemes(rng):
    cases = []
    for name, scheme in SCHEMES.items():
        for _ in range(25):
            length = rng.randint(1, 14)
            tags = in_scheme(name, length, entities(rng, length))
            read = Entities([tags], scheme=scheme).entities[0]
            cases.append({"scheme": name, "tags": tags, "entities": [[e.tag, e.start, e.end] for e in read]})
    return cases


def classes(rng, labels, rows):
    right = [rng.randrange(labels) for _ in range(rows)]
    found = [rng.randrange(labels) if rng.random() < 0.3 else label for label in right]
    each = precision_recall_fscore_support(right, found, zero_division=0)
    # Of micro, precision, recall and F1 are one number: each row has one class.
    micro = precision_recall_fscore_support(right, found, average="micro", zero_division=0)[2]
    macro = precision_recall_fscore_support(right, found, average="macro", zero_division=0)[2]
    return {
        "labels": labels,
        "right": right,
        "found": found,
        "accuracy": rounded(accuracy_score(right, found)),
        "micro_f1": rounded(micro),
        "macro_f1": rounded(macro),
        "classes": [[rounded(p), rounded(r), rounded(f), int(n)] for p, r, f, n in zip(*each, strict=True)],
    }


def main():
    rng = random.Random(3)
    goldens = {
        "made_with": {name: version(name) for name in ("seqeval", "scikit-learn")},
        "scores": [scores(rng, KINDS[:count], sentences) for count in (1, 2, 3) for sentences in (1, 4, 30)]
        # Nothing found; a kind that is only found.
        + [score([["B-PER", "I-PER", "O"]], [["O", "O", "O"]]), score([["B-PER", "O"]], [["B-PER", "I-LOC"]])],
        "schemes": schemes(rng),
        "classes": [classes(rng, 2, 40), classes(rng, 7, 300)],
    }
    Path(__file__).with_name("goldens.json").write_text(json.dumps(goldens, separators=(",", ":"), allow_nan=False) + "\n")


main()
