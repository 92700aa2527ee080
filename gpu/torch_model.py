"""The three kinds of encoder in PyTorch, over packed sequences, with weights made by the formula of
crates/encoder/src/synthetic.rs on the device.
"""

import math

import torch

XL, XLMR, BERT = "xlm-roberta-xl", "xlm-roberta", "bert"


def device():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronize():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


MASK = (1 << 64) - 1


def signed(value):
    """The 64 bits as torch holds them."""
    value &= MASK
    return value - (1 << 64) if value >> 63 else value


def fnv1a(text):
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 & MASK
    return value


def splitmix64(value):
    def shifted(value, bits):  # Torch shifts signed numbers, so the sign is cut off.
        return (value >> bits) & ((1 << (64 - bits)) - 1)

    value = value + signed(0x9E3779B97F4A7C15)
    value = (value ^ shifted(value, 30)) * signed(0xBF58476D1CE4E5B9)
    value = (value ^ shifted(value, 27)) * signed(0x94D049BB133111EB)
    return value ^ shifted(value, 31)


def numbers(name, shape, dtype):
    """The tensor of that name, as crates/encoder/src/synthetic.rs makes it."""
    if name.endswith(("LayerNorm.weight", "layer_norm.weight")):
        offset, scale = 1.0, 0.1
    elif "embeddings." in name and len(shape) == 2:
        offset, scale = 0.0, 0.1
    elif len(shape) == 2:
        offset, scale = 0.0, torch.sqrt(torch.tensor(3.0) / torch.tensor(float(shape[1]))).item()
    else:
        offset, scale = 0.0, 0.05
    scale = torch.tensor(scale, dtype=torch.float32).item()
    seed, count, chunk = signed(fnv1a(name)), math.prod(shape), 1 << 25
    out = torch.empty(count, dtype=dtype, device=device())
    for first in range(0, count, chunk):
        last = min(first + chunk, count)
        mixed = splitmix64(torch.arange(first, last, device=out.device) + seed)
        uniform = ((mixed >> 40) & 0xFFFFFF).to(torch.float32) / float(1 << 23) - 1.0
        out[first:last] = (uniform * scale + offset).to(dtype)
    return out.view(shape)


def config(kind, vocab, hidden, layers, heads, wide, eps=1e-5, types=1):
    bert = kind == BERT
    return {
        "model_type": kind,
        "vocab_size": vocab,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": wide,
        "max_position_embeddings": 512 if bert else 514,
        "type_vocab_size": types,
        "layer_norm_eps": eps,
        "pad_token_id": 0 if bert else 1,
    }


# As crates/gpu-bench/src/geometry.rs.
GEOMETRIES = {
    "xl": config(XL, 250_880, 2560, 36, 32, 10_240),
    "xlmr-large": config(XLMR, 250_002, 1024, 24, 16, 4096),
    "e5-small": config(BERT, 250_037, 384, 12, 12, 1536, eps=1e-12, types=2),
    "tiny": config(XL, 1000, 64, 2, 2, 128),
}


class Batch:
    """Packed sequences on the device."""

    def __init__(self, ids, borders):
        on = device()
        self.lengths = [end - start for start, end in zip(borders, borders[1:])]
        self.longest, self.tokens = max(self.lengths), len(ids)
        self.ids = torch.tensor(ids, device=on)
        self.borders = torch.tensor(borders, dtype=torch.int32, device=on)
        lengths = torch.tensor(self.lengths, device=on)
        self.counts = lengths.to(torch.float32).unsqueeze(1)
        self.sequence = torch.repeat_interleave(torch.arange(len(self.lengths), device=on), lengths)
        starts = torch.repeat_interleave(self.borders[:-1].long(), lengths)
        self.places = torch.arange(self.tokens, device=on) - starts

    def padded(self):
        """Where each token stands in rows of equal length, and which places have a token."""
        grid = self.sequence * self.longest + self.places
        mask = torch.zeros(len(self.lengths) * self.longest, dtype=torch.bool, device=grid.device)
        mask[grid] = True
        return grid, mask.view(len(self.lengths), 1, 1, self.longest)


def attention_varlen(batch, heads):
    from torch.nn.attention.varlen import varlen_attn

    def attend(qkv):
        q, k, v = qkv.view(batch.tokens, 3, heads, -1).unbind(1)
        borders, longest = batch.borders, batch.longest
        return varlen_attn(q, k, v, borders, borders, longest, longest).reshape(batch.tokens, -1)

    return attend


def attention_flash(batch, heads):
    def attend(qkv):
        q, k, v = qkv.view(batch.tokens, 3, heads, -1).unbind(1)
        borders, longest = batch.borders, batch.longest
        flash = torch.ops.aten._flash_attention_forward
        return flash(q, k, v, borders, borders, longest, longest, 0.0, False, False)[0].reshape(batch.tokens, -1)

    return attend


def attention_padded(batch, heads):
    equal = len(set(batch.lengths)) == 1
    grid, mask = (None, None) if equal else batch.padded()
    rows, longest = len(batch.lengths), batch.longest

    def attend(qkv):
        if not equal:
            wide = qkv.new_zeros(rows * longest, qkv.shape[1])
            wide[grid] = qkv
            qkv = wide
        q, k, v = qkv.view(rows, longest, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out = out.transpose(1, 2).reshape(rows * longest, -1)
        return out if equal else out[grid]

    return attend


ATTENTIONS = {"varlen_attn": attention_varlen, "flash": attention_flash, "padded SDPA": attention_padded}


def attention_for(settings, batch, dtype):
    """The first kind that this version and device have: without padding before with it."""
    hidden, heads = settings["hidden_size"], settings["num_attention_heads"]
    for name, make in ATTENTIONS.items():
        try:
            attend = make(batch, heads)
            attend(torch.randn(batch.tokens, 3 * hidden, device=device(), dtype=dtype))
            synchronize()
            return name, attend
        except Exception as error:
            why = error
    raise why


class Model:
    """An encoder with weights by formula: ids in, states out."""

    def __init__(self, settings, dtype):
        self.settings, self.dtype = settings, dtype
        self.pre = settings["model_type"] == XL
        hidden, wide = settings["hidden_size"], settings["intermediate_size"]

        def linear(names, outputs, inputs):
            weight = torch.cat([numbers(f"{name}.weight", (outputs, inputs), dtype) for name in names])
            return weight, torch.cat([numbers(f"{name}.bias", (outputs,), dtype) for name in names])

        def norm(name):
            return numbers(f"{name}.weight", (hidden,), dtype), numbers(f"{name}.bias", (hidden,), dtype)

        def table(name, rows):
            return numbers(f"embeddings.{name}_embeddings.weight", (rows, hidden), dtype)

        self.words = table("word", settings["vocab_size"])
        self.positions = table("position", settings["max_position_embeddings"])
        self.types = table("token_type", settings["type_vocab_size"])
        self.layers = []
        for number in range(settings["num_hidden_layers"]):
            name = f"encoder.layer.{number}"
            parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
            norms = (
                ("attention.self_attn_layer_norm", "LayerNorm")
                if self.pre
                else ("attention.output.LayerNorm", "output.LayerNorm")
            )
            self.layers.append(
                (
                    linear(parts, hidden, hidden),
                    linear([f"{name}.attention.output.dense"], hidden, hidden),
                    linear([f"{name}.intermediate.dense"], wide, hidden),
                    linear([f"{name}.output.dense"], hidden, wide),
                    norm(f"{name}.{norms[0]}"),
                    norm(f"{name}.{norms[1]}"),
                )
            )
        self.last = norm("encoder.LayerNorm" if self.pre else "embeddings.LayerNorm")

    def states(self, batch, attend):
        functional, eps = torch.nn.functional, self.settings["layer_norm_eps"]
        first = 0 if self.settings["model_type"] == BERT else self.settings["pad_token_id"] + 1

        def norm(x, weights):
            return functional.layer_norm(x, x.shape[-1:], *weights, eps)

        h = self.words[batch.ids] + self.positions[batch.places + first] + self.types[0]
        if not self.pre:
            h = norm(h, self.last)
        for qkv, out, up, down, norm1, norm2 in self.layers:
            if self.pre:
                h = h + functional.linear(attend(functional.linear(norm(h, norm1), *qkv)), *out)
                h = h + functional.linear(functional.gelu(functional.linear(norm(h, norm2), *up)), *down)
            else:
                h = norm(h + functional.linear(attend(functional.linear(h, *qkv)), *out), norm1)
                h = norm(h + functional.linear(functional.gelu(functional.linear(h, *up)), *down), norm2)
        return norm(h, self.last) if self.pre else h

    def means(self, states, batch):
        sums = torch.zeros(len(batch.lengths), states.shape[1], device=states.device)
        return sums.index_add_(0, batch.sequence, states.float()) / batch.counts
