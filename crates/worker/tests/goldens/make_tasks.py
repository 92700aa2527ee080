"""Writes tasks.json: the results of the pipelines of Hugging Face transformers for 210 texts in 15 languages.

    python make_tasks.py            # torch 2.15, transformers 5.23, CPU, f32
    python make_tasks.py answers    # the same with transformers 4.57: version 5 has no question answering; writes answers.json

The models are small, their weights a pure function of tensor name and index, as in the encoder's goldens; a head's
weights are multiplied by SCALE, so that its answers differ from text to text. The tokenizer is the built-in one.

A head with such weights prefers nearly the same labels for all texts, so each task has the kind of model and the labels
that make its results vary: classes and passages use the pre-norm kind, whose <s> depends more on the text (with the
other kind all of them are LABEL_0), and the scores of passages are not scaled, because every sigmoid would be near 1.
"""

import json
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import transformers
import zstandard

HERE = Path(__file__).parent
ASSETS = HERE.parents[2] / "builtin" / "assets"
sys.path.insert(0, str(HERE.parents[2] / "encoder" / "tests" / "goldens"))
from make import numbers  # noqa: E402

LANGUAGES = ["eng", "fra", "mya", "rus", "arb", "heb", "hin", "tha", "jpn", "kor", "cmn_hans", "vie", "swh", "fin", "amh"]
ODD = [
    "👩‍👩‍👧 went to São Paulo 🇧🇷 with Zoë!",
    "Ångström café naïve Việt Nam",
    "  leading and   many    spaces  ",
    "…!?—«»()",
    unicodedata.normalize("NFC", "e\u0301\u0302\u0303 Zalgo t\u0336e\u0336x\u0336t"),
    "שלום world مرحبا",
    "a\u200db\u200cc",
    "ﬁne ＡＢＣ ①②③",
    "x",
    "https://example.org/a_b?c=d&e=f#g",
    "dots.and-lines_",
    "ปัญญาประดิษฐ์และน้ำ",
]
LABELS = {
    # Few tokens are O: spans are adjacent.
    "xlm-roberta": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"],
    # Three of four tokens are O: spans are separate.
    "xlm-roberta-xl": ["B-LOC", "B-ORG", "O", "I-LOC", "I-ORG", "B-PER", "I-PER"],
}
SCALE = 6.0
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
HEADS = ("classifier.", "qa_outputs.")


def texts():
    rows = pq.read_table(ASSETS / "udhr.parquet").to_pylist()
    # Any white space ends a word in polylance; the pipelines join the words at a line break.
    for row in rows:
        row["text"] = " ".join(row["text"].split())
    chosen = []
    for language in LANGUAGES:
        of_language = [row["text"] for row in rows if row["code"] == language]
        assert len(of_language) >= 13, language
        chosen += of_language[1:14]
    # Longer than the model's limit: read in windows.
    english = [row["text"] for row in rows if row["code"] == "eng"]
    return chosen + ODD + [" ".join(english[:12]), "".join(row["text"] for row in rows if row["code"] == "tha")[:3000], " "]


def tokenizer():
    text = zstandard.ZstdDecompressor().stream_reader((ASSETS / "tokenizer.json.zst").read_bytes()).read().decode()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=__import__("tokenizers").Tokenizer.from_str(text),
        bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>", mask_token="<mask>", cls_token="<s>", sep_token="</s>",
        model_max_length=512, model_input_names=["input_ids", "attention_mask"],
    )
    return fast


def model(kind, name, vocab, head_scale=SCALE, **settings):
    """The weights are named without `roberta.`, as the checkpoints are that the Rust side writes."""
    config = transformers.AutoConfig.for_model(kind, vocab_size=vocab, **SIZES, **settings)
    prefix = {"xlm-roberta": "XLMRoberta", "xlm-roberta-xl": "XLMRobertaXL"}[kind]
    built = getattr(transformers, f"{prefix}For{name}")._from_config(config, attn_implementation="eager")
    tied = set(getattr(built, "all_tied_weights_keys", None) or [])
    for full, parameter in built.named_parameters(remove_duplicate=False):
        if full in tied:
            continue
        short = full.removeprefix("roberta.")
        scale = head_scale if short.startswith(HEADS) else 1.0
        parameter.data = torch.from_numpy(numbers(short, tuple(parameter.shape)) * np.float32(scale))
    built.tie_weights()
    return built.eval()


def rounded(score):
    return round(float(score), 6)


def spans(kind, fast, given):
    labelled = model(kind, "TokenClassification", len(fast), id2label=dict(enumerate(LABELS[kind])), label2id={label: id for id, label in enumerate(LABELS[kind])})
    pipe = transformers.pipeline("token-classification", model=labelled, tokenizer=fast, stride=128, aggregation_strategy="simple")
    for strategy in ["none", "simple", "first", "average", "max"]:
        # `none` does not allow a stride, so it has no texts that are too long.
        settings = {"aggregation_strategy": strategy, "stride": None if strategy == "none" else 128}
        found = []
        for text in given:
            if strategy == "none" and len(fast(text)["input_ids"]) > 512:
                found.append(None)
                continue
            entities = pipe(text, **settings)
            found.append([[e.get("entity_group") or e["entity"], rounded(e["score"]), int(e["start"]), int(e["end"])] for e in entities])
        yield strategy, found


def classes(fast, given):
    for name, settings in {"single": {"num_labels": 3}, "multi": {"num_labels": 3, "problem_type": "multi_label_classification"}, "regression": {"num_labels": 1, "problem_type": "regression"}}.items():
        pipe = transformers.pipeline("text-classification", model=model("xlm-roberta-xl", "SequenceClassification", len(fast), **settings), tokenizer=fast, top_k=None)
        yield name, [[[one["label"], rounded(one["score"])] for one in pipe([text], truncation=True)[0]] for text in given]


def zero_shot(fast, given):
    labels = {0: "contradiction", 1: "neutral", 2: "entailment"}
    built = model("xlm-roberta", "SequenceClassification", len(fast), id2label=labels, label2id={label: id for id, label in labels.items()})
    pipe = transformers.pipeline("zero-shot-classification", model=built, tokenizer=fast)
    for multi in (False, True):
        answers = [pipe(text, ["law", "сон", "自由"], hypothesis_template="It is {}.", multi_label=multi) for text in given if text.strip()]
        yield ("multi" if multi else "single"), [[[label, rounded(score)] for label, score in zip(one["labels"], one["scores"])] for one in answers]


def masks(fast, given):
    pipe = transformers.pipeline("fill-mask", model=model("xlm-roberta", "MaskedLM", len(fast)), tokenizer=fast, top_k=5)
    asked, answers = [], []
    for at, text in enumerate(given[:195:4]):
        words = text[:300].split(" ")
        words[at % len(words)] = "<mask>"
        if at % 8 == 7:
            words[at % len(words) - 1] = "<mask>"
        asked.append(" ".join(words))
        found = pipe(asked[-1])
        found = found if isinstance(found[0], list) else [found]
        answers.append([[[one["token_str"], rounded(one["score"])] for one in mask] for mask in found])
    return {"texts": asked, "answers": answers}


def generated(fast, given):
    pipe = transformers.pipeline("text-generation", model=model("xlm-roberta", "CausalLM", len(fast), is_decoder=True), tokenizer=fast)
    asked = [text[:60] for text in given[:195:10]]
    return {"texts": asked, "answers": [pipe(text, do_sample=False, max_new_tokens=32, return_full_text=False)[0]["generated_text"] for text in asked]}


def pairs(fast, given):
    choice = model("xlm-roberta", "MultipleChoice", len(fast))
    rank = model("xlm-roberta-xl", "SequenceClassification", len(fast), head_scale=1.0, num_labels=1)
    asked = [[given[at][:80], [given[at + 1][:60], given[at + 2][:50], given[at + 3][:40]]] for at in range(0, 120, 6)]
    choices, scores = [], []
    for text, options in asked:
        # One at a time: a pipeline may have made the tokenizer pad on the left, where these models read their results.
        encoded = [fast([text], [option], return_tensors="pt") for option in options]
        logits = torch.stack([choice(**{name: value[None] for name, value in one.items()}).logits[0, 0] for one in encoded])
        choices.append([rounded(score) for score in logits.softmax(dim=0)])
        scores.append([rounded(rank(**one).logits[0, 0].sigmoid()) for one in encoded])
    return {"asked": asked, "choices": choices, "scores": scores}


def answers(fast, given):
    built = model("xlm-roberta", "QuestionAnswering", len(fast))
    pipe = transformers.pipeline("question-answering", model=built, tokenizer=fast)
    given_indices = pipe.get_indices

    def get_indices(encoding, start, end, sequence, align_to_words):
        # A token may begin with a space, which is not part of an answer.
        start, end = given_indices(encoding, start, end, sequence, align_to_words)
        return start + len(context[start:end]) - len(context[start:end].lstrip()), end

    pipe.get_indices = get_indices
    asked = [[given[at + 1][:40], given[at]] for at in range(0, 190, 3)] + [["Who?", given[-3]], ["ใคร", given[-2]]]
    # One context per language that is longer than a window.
    asked += [[given[at][:40], " ".join(given[at : at + 13])] for at in range(0, 195, 13)]
    found = {}
    for name, options in [("plain", {}), ("null", {"handle_impossible_answer": True}), ("tokens", {"align_to_words": False})]:
        told = []
        for question, context in asked:
            all_of = pipe(question=question, context=context, top_k=3, **options)
            all_of = all_of if isinstance(all_of, list) else [all_of]
            told.append([[one["answer"], rounded(one["score"]), one["start"], one["end"]] for one in all_of])
        found[name] = told
    return {"asked": asked, **found}


def write(name, **goldens):
    made_with = {"torch": torch.__version__, "transformers": transformers.__version__, "numpy": np.__version__}
    text = json.dumps({"made_with": made_with, "scale": SCALE, "labels": LABELS, **goldens}, ensure_ascii=False, separators=(",", ":"))
    (HERE / f"{name}.json.zst").write_bytes(zstandard.ZstdCompressor(level=19).compress(text.encode()))
    print(name, len(text), "bytes")


def main():
    np.seterr(over="ignore")
    torch.set_grad_enabled(False)
    fast, given = tokenizer(), texts()
    if sys.argv[1:] == ["answers"]:
        return write("answers", answers=answers(fast, given))
    write(
        "tasks",
        texts=given,
        spans=dict(spans("xlm-roberta", fast, given)),
        spans_xl=dict(spans("xlm-roberta-xl", fast, given)),
        classes=dict(classes(fast, given)),
        zero_shot=dict(zero_shot(fast, given)),
        masks=masks(fast, given),
        generated=generated(fast, given),
        pairs=pairs(fast, given),
    )


if __name__ == "__main__":
    main()
