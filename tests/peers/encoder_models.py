"""The models of the encoder measurements, written once in every peer's own format.

    python tests/peers/encoder_models.py FOLDER [--venv DIR]

`e5`: the built-in model in f32. `xl`: XLM-RoBERTa-XL's geometry with two layers and made-up weights that bf16 holds
exactly. Next to each folder are its ONNX file, that file with dynamic int8 weights, and an OpenVINO model.
"""

import argparse
import json
import shutil
from pathlib import Path

import peer_env
from export_model import export

XL_LAYERS, XL_VOCABULARY = 2, 4096


def pooled(model):
    """A sentence-transformers model as one module over tokens and mask."""
    import torch

    class Pooled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            return self.model({"input_ids": input_ids, "attention_mask": attention_mask})["sentence_embedding"]

    return Pooled().eval()


def write_xl(folder: Path, tokenizer: Path) -> None:
    import torch
    from transformers import XLMRobertaXLConfig, XLMRobertaXLModel

    torch.manual_seed(1)
    config = XLMRobertaXLConfig(num_hidden_layers=XL_LAYERS, vocab_size=XL_VOCABULARY)
    model = XLMRobertaXLModel(config, add_pooling_layer=False).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16).float())
    model.save_pretrained(folder)
    shutil.copy(tokenizer, folder / "tokenizer.json")
    modules = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_Normalize", "Normalize")]
    modules = [
        {"idx": at, "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (name, path, kind) in enumerate(modules)
    ]
    pooling = {"word_embedding_dimension": config.hidden_size, "pooling_mode_mean_tokens": True}
    for name, document in {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"},
        "1_Pooling/config.json": pooling,
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(document), encoding="utf-8")
    (folder / "2_Normalize").mkdir(exist_ok=True)


def convert(folder: Path, name: str) -> None:
    """Writes the ONNX files and the OpenVINO model of `folder/name`."""
    import openvino
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from sentence_transformers import SentenceTransformer

    def loaded(attention: str):
        options = {"attn_implementation": attention}
        return pooled(SentenceTransformer(str(folder / name), device="cpu", model_kwargs=options))

    ids = torch.randint(5, 900, (3, 17))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    axes = {"input_ids": {0: "batch", 1: "tokens"}, "attention_mask": {0: "batch", 1: "tokens"}}
    onnx = folder / f"{name}.onnx"
    if name == "e5":
        # ONNX Runtime is faster on the plain form of attention, OpenVINO finds it in either.
        torch.onnx.export(
            loaded("eager"), (ids, mask), str(onnx), input_names=list(axes), output_names=["vectors"], dynamic_axes=axes,
            dynamo=False, opset_version=17,
        )  # fmt: skip
        int8 = folder / f"{name}-int8.onnx"
        quantize_dynamic(onnx, int8, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])
    shapes = [(key, [-1, -1], openvino.Type.i64) for key in axes]
    converted = openvino.convert_model(loaded("sdpa"), example_input=(ids, mask), input=shapes)
    openvino.save_model(converted, folder / f"{name}.xml", compress_to_fp16=False)


def make(folder: Path) -> None:
    """Writes the models that are missing in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "e5.xml").exists():
        export(folder / "e5")
        convert(folder, "e5")
    if not (folder / "xl.xml").exists():
        (folder / "xl").mkdir(exist_ok=True)
        write_xl(folder / "xl", folder / "e5" / "tokenizer.json")
        convert(folder, "xl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    peer_env.add_arguments(parser)
    args = parser.parse_args()
    peer_env.enter(args.venv)
    make(args.folder)


if __name__ == "__main__":
    main()
