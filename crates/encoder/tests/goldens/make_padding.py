"""Writes padding.safetensors and padding.json: hidden states of inputs that have the padding id in them, as a text has
it in which someone wrote "<pad>", from Hugging Face transformers.

    python make_padding.py          # torch 2.15, transformers 5.24, CPU, f32
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

from make import BERT, XL, XLMR, case, numbers

INPUTS = [[0, 7, 1, 9, 1, 1, 11, 2], [0, 7, 9, 11, 2], [1, 0, 5, 2, 1], [0, 1, 2], [1]]
CASES = [case(f"{kind}-padding", kind, 32, 2, 4, 48, []) for kind in (XLMR, XL, BERT)]


def main():
    np.seterr(over="ignore")
    torch.set_grad_enabled(False)
    outputs = {}
    for one in CASES:
        settings = dict(one["config"])
        config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
        model = transformers.AutoModel.from_config(config, attn_implementation="eager").eval()
        state = {name: torch.from_numpy(numbers(name, tuple(value.shape))) for name, value in model.state_dict().items() if value.is_floating_point()}
        model.load_state_dict(state, strict=False)
        states = [model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).last_hidden_state[0] for ids in INPUTS]
        outputs[f"{one['name']}.hidden_states"] = torch.cat(states).numpy()
    here = Path(__file__).parent
    save_file(outputs, here / "padding.safetensors")
    made_with = {"torch": torch.__version__, "transformers": transformers.__version__, "numpy": np.__version__}
    cases = [{"name": one["name"], "config": one["config"]} for one in CASES]
    (here / "padding.json").write_text(json.dumps({"made_with": made_with, "inputs": INPUTS, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
