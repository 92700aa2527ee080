"""Writes heads.safetensors and heads.json: logits and generated ids of every head class of Hugging Face transformers.

    python make_heads.py    # torch 2.15, transformers 5.23, CPU, f32

The weights are a pure function of tensor name and index, as in `make.py`; a name is the bare model's, without
`roberta.` or `bert.`. `saved/` holds two small checkpoints as transformers itself writes them.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers
from make import BERT, XL, XLMR, input_ids, numbers
from safetensors.numpy import save_file

CLASSES = {
    "sequence-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
    "masked-lm": "ForMaskedLM",
    "causal-lm": "ForCausalLM",
    "multiple-choice": "ForMultipleChoice",
}
PREFIX = {XL: "XLMRobertaXL", XLMR: "XLMRoberta", BERT: "Bert"}
LENGTHS = [9, 1, 33, 120, 4]
VOCAB = 150
NEW_TOKENS = 32
END = 2
# (name, model type, layers, heads, width of the feed-forward block)
MODELS = [("xl", XL, 6, 4, 192), ("xlmr", XLMR, 2, 2, 100), ("bert", BERT, 2, 4, 96)]
LABELS = {"sequence-classification": 3, "token-classification": 5}


def class_of(kind, task):
    name = "LMHeadModel" if (kind, task) == (BERT, "causal-lm") else CLASSES[task]
    return getattr(transformers, PREFIX[kind] + name)


def case(name, kind, layers, heads, ffn, task, tied=True, labels=None, names="prefixed", types=False):
    roberta = kind != BERT
    config = {
        "model_type": kind,
        "vocab_size": VOCAB,
        "hidden_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": ffn,
        "max_position_embeddings": 130,
        "type_vocab_size": 1 if roberta else 2,
        "layer_norm_eps": 1e-5 if roberta else 1e-12,
        "pad_token_id": 1 if roberta else 0,
        "hidden_act": "gelu",
    }
    return {"name": name, "task": task, "tied": tied, "labels": labels, "names": names, "types": types, "config": config}


def cases():
    for name, *model in MODELS:
        for task in CLASSES:
            bert = model[0] == BERT
            yield case(f"{name}-{task}", *model, task, labels=LABELS.get(task), types=bert)
        for task in ["masked-lm", "causal-lm"]:
            yield case(f"{name}-{task}-untied", *model, task, tied=False)
        yield case(f"{name}-regression-bare", *model, "sequence-classification", labels=1, names="bare")
        yield case(f"{name}-question-answering-bare", *model, "question-answering", names="bare")


def canonical(name):
    return name.removeprefix("roberta.").removeprefix("bert.")


def build(case):
    settings = dict(case["config"])
    kind = settings.pop("model_type")
    if case["labels"]:
        settings["num_labels"] = case["labels"]
    decoder = case["task"] == "causal-lm"
    # One end of text for all kinds, so that a text of 32 tokens can end.
    config = transformers.AutoConfig.for_model(
        kind, **settings, is_decoder=decoder, tie_word_embeddings=case["tied"], bos_token_id=0, eos_token_id=END
    )
    model = class_of(kind, case["task"])._from_config(config, attn_implementation="eager")
    # A tied parameter has two names, and may be listed under either: its numbers follow from the one it is stored by.
    tied = set(model.all_tied_weights_keys)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in tied:
            continue
        parameter.data = torch.from_numpy(numbers(canonical(name), tuple(parameter.shape)))
    model.tie_weights()
    return model.eval()


def sequences(lengths, vocab):
    for sequence, length in enumerate(lengths):
        ids = input_ids(sequence, length, vocab)
        # The second text of a pair begins after a third.
        yield ids, [int(at > length // 3) for at in range(length)]


def positions(length):
    """Where a language model's logits are kept: anywhere, in no order."""
    return [length - 1, 0, length // 2][: min(3, length)]


def logits(case, model):
    """One tensor a sequence, row major: as the Rust side gives them."""
    task = case["task"]
    for ids, types in sequences(LENGTHS, VOCAB):
        ids = torch.tensor([ids])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if case["types"]:
            inputs["token_type_ids"] = torch.tensor([types])
        if task == "multiple-choice":
            inputs = {name: value[None] for name, value in inputs.items()}
        output = model(**inputs)
        if task == "question-answering":
            yield torch.stack([output.start_logits[0], output.end_logits[0]], dim=-1)
        elif task in ("masked-lm", "causal-lm"):
            yield output.logits[0, positions(ids.shape[1])]
        else:
            yield output.logits[0]


PROMPTS = [[0], [0, 17, 23, 99, 4], [0, *input_ids(2, 40, VOCAB)[1:]], [0, 50, 60, 70, 80, 90], [0, 141], [0, 9, 9, 8]]


def generated(model):
    """New ids of three prompts, the same with and without the cache, without the id that ends the text."""
    texts = []
    for prompt in PROMPTS:
        new = []
        for use_cache in (True, False):
            settings = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "use_cache": use_cache, "pad_token_id": 1}
            output = model.generate(
                torch.tensor([prompt]), **settings, output_scores=True, return_dict_in_generate=True
            )
            ids = output.sequences[0, len(prompt) :].tolist()
            new.append(ids[:-1] if ids[-1] == END else ids)
        assert new[0] == new[1]
        best = torch.stack(output.scores)[:, 0].topk(2).values
        # Where an id was chosen by a hair, another order of additions may choose another.
        if (best[:, 0] - best[:, 1]).min() > 1e-3:
            texts.append({"prompt": prompt, "ids": new[0]})
    assert len(texts) >= 3
    return texts[:3]


def save(folder, case):
    """A checkpoint as transformers saves it: a few thousand numbers."""
    shutil.rmtree(folder, ignore_errors=True)
    model = build(case)
    model.save_pretrained(folder)
    return model


def saved(name, kind, task, **more):
    small = {**case(name, kind, 1, 2, 12, task, **more), "saved": True}
    return {**small, "config": {**small["config"], "hidden_size": 8}}


SAVED = [
    saved("xlmr-masked-lm-saved", XLMR, "masked-lm"),
    saved("bert-sequence-classification-saved", BERT, "sequence-classification", labels=2, types=True),
]


def main():
    np.seterr(over="ignore")
    torch.set_grad_enabled(False)
    here = Path(__file__).parent
    outputs, described = {}, []
    for golden in [*cases(), *SAVED]:
        model = save(here / "saved" / golden["name"], golden) if golden.get("saved") else build(golden)
        for sequence, values in enumerate(logits(golden, model)):
            outputs[f"{golden['name']}.{sequence}"] = values.contiguous().numpy()
        if golden["task"] == "causal-lm":
            golden["generated"] = generated(model)
        described.append(golden)
        print(golden["name"], type(model).__name__)
    save_file(outputs, here / "heads.safetensors")
    made_with = {"torch": torch.__version__, "transformers": transformers.__version__, "numpy": np.__version__}
    lines = ",\n  ".join(json.dumps(golden) for golden in described)
    made = f'"made_with": {json.dumps(made_with)},\n "lengths": {LENGTHS}'
    (here / "heads.json").write_text(f'{{{made},\n "cases": [\n  {lines}\n]}}\n')


if __name__ == "__main__":
    main()
