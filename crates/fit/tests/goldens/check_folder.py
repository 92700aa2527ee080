"""Loads a folder that `polylance fit --conll` wrote with Hugging Face transformers, and holds its answers against ours.

    python check_folder.py FOLDER POLYLANCE      # torch 2.15, transformers 5.23, CPU, f32

FOLDER is a tagger on a model of any kind, POLYLANCE the binary. Every token's score and place must be the same.
The check fails when a tensor of the folder is not used, or one of the class is not there.
"""

import json
import subprocess
import sys

import torch
import transformers

TEXTS = [
    "Ada Lovelace was born in London",
    "@paulwalk It 's the view from where I 'm living for two weeks . Empire State Building",
    "Česká republika a Václav Havel v Praze",
    "ทุกคนมีสิทธิในการศึกษา กรุงเทพ",
    "東京で会いましょう",
    "القاهرة مدينة كبيرة",
    "👍🏽 New York 👍",
]
TOLERANCE = 1e-4


def main(folder, polylance):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model, report = transformers.AutoModelForTokenClassification.from_pretrained(folder, output_loading_info=True)
    model.eval()
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[kind], f"{kind}: {report[kind]}"
    with open(f"{folder}/config.json") as file:
        prefix = json.load(file)["polylance"]["prefix"]

    command = [polylance, "predict", "--task", "ner", "--model", folder, "--aggregation", "none"]
    lines = "".join(f"{text}\n" for text in TEXTS)
    answers = subprocess.run(command, input=lines, capture_output=True, check=True, text=True).stdout.splitlines()
    worst, spans = 0.0, 0
    for text, answer in zip(TEXTS, answers, strict=True):
        encoded = tokenizer(prefix + text, return_tensors="pt", return_offsets_mapping=True, truncation=True)
        offsets = encoded.pop("offset_mapping")[0].tolist()
        encoded.pop("token_type_ids", None)
        with torch.no_grad():
            scores = model(**encoded).logits[0].softmax(-1)
        special = tokenizer.get_special_tokens_mask(encoded["input_ids"][0].tolist(), already_has_special_tokens=True)
        best = scores.max(-1)
        expected = [
            (model.config.id2label[label], score, end - len(prefix))
            for label, score, (_, end), special in zip(
                best.indices.tolist(), best.values.tolist(), offsets, special, strict=True
            )
            if not special and end > len(prefix) and model.config.id2label[label] != "O"
        ]
        found = [(span["label"], span["score"], span["end"]) for span in json.loads(answer)["spans"]]
        assert [(label, end) for label, _, end in found] == [(label, end) for label, _, end in expected], (
            f"{text}: {found} is not {expected}"
        )
        worst = max([worst, *(abs(ours - theirs) for (_, ours, _), (_, theirs, _) in zip(found, expected))])
        spans += len(found)
    assert spans > 0, "the tagger found nothing: nothing was compared"
    assert worst <= TOLERANCE, f"scores differ by {worst}"
    print(f"transformers {transformers.__version__}: {spans} tokens of {len(TEXTS)} texts, scores differ by {worst:.1e}")


main(*sys.argv[1:])
