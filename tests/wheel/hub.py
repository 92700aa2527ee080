"""A stand-in for the hub: one tiny model, served with the hub's paths and headers."""

import http.server
import json
import pathlib
import struct
import threading

HIDDEN, FFN = 16, 24
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "\u2581", *"abcdeinorst"]


def write_model(folder: pathlib.Path) -> None:
    """Writes a `bert` model of one layer with a Unigram tokenizer of sixteen pieces."""
    folder.mkdir(parents=True)
    config = {
        "model_type": "bert", "vocab_size": len(PIECES), "hidden_size": HIDDEN, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": FFN, "max_position_embeddings": 64, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12, "pad_token_id": 1, "hidden_act": "gelu",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer()))
    (folder / "model.safetensors").write_bytes(weights())


def tokenizer() -> dict:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    sequence = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "</s>", "type_id": 0}}]  # fmt: skip
    specials = {piece: {"id": piece, "ids": [PIECES.index(piece)], "tokens": [piece]} for piece in ("<s>", "</s>")}
    pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}]
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "decoder": None,
        "added_tokens": [{"id": id, "content": PIECES[id], **flags} for id in range(4)],
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
        "post_processor": {
            "type": "TemplateProcessing", "single": sequence, "pair": pair, "special_tokens": specials,
        },
        "model": {
            "type": "Unigram", "unk_id": 3, "byte_fallback": False, "vocab": [[piece, -1.0] for piece in PIECES],
        },
    }  # fmt: skip


def weights() -> bytes:
    layer = "encoder.layer.0"
    shapes = {
        "embeddings.word_embeddings.weight": [len(PIECES), HIDDEN],
        "embeddings.position_embeddings.weight": [64, HIDDEN],
        "embeddings.token_type_embeddings.weight": [2, HIDDEN],
    }
    for norm in ("embeddings.LayerNorm", f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"):
        shapes |= {f"{norm}.weight": [HIDDEN], f"{norm}.bias": [HIDDEN]}
    matrices = {"attention.self.query": HIDDEN, "attention.self.key": HIDDEN, "attention.self.value": HIDDEN,
                "attention.output.dense": HIDDEN, "intermediate.dense": FFN}  # fmt: skip
    for name, rows in matrices.items():
        shapes |= {f"{layer}.{name}.weight": [rows, HIDDEN], f"{layer}.{name}.bias": [rows]}
    shapes |= {f"{layer}.output.dense.weight": [HIDDEN, FFN], f"{layer}.output.dense.bias": [HIDDEN]}

    header, data = {}, b""
    for name, shape in shapes.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = [(index * 37 % 101 - 50) / 200 for index in range(count)]
        start, data = len(data), data + struct.pack(f"<{count}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, len(data)]}
    described = json.dumps(header).encode()
    described += b" " * (-len(described) % 8)
    return struct.pack("<Q", len(described)) + described + data


def serve(folder: pathlib.Path, name: str) -> http.server.ThreadingHTTPServer:
    """Serves the folder as the model `name` on a port of this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.respond(with_body=False)

        def do_GET(self) -> None:
            self.respond(with_body=True)

        def respond(self, with_body: bool) -> None:
            file = folder / self.path.rpartition("/")[2]
            if self.path.startswith(f"/api/models/{name}"):
                siblings = [{"rfilename": file.name} for file in folder.iterdir()]
                status, headers, body = 200, {}, json.dumps({"siblings": siblings, "sha": "c0ffee"}).encode()
            elif self.path.startswith(f"/{name}/resolve/main/") and file.is_file():
                whole = file.read_bytes()
                first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
                end = min(int(last or len(whole) - 1), len(whole) - 1)
                headers = {"X-Repo-Commit": "c0ffee", "ETag": f'"{file.name}"'}
                headers["Content-Range"] = f"bytes {first}-{end}/{len(whole)}"
                status, body = 206, whole[int(first) : end + 1]
            else:
                status, headers, body = 404, {}, b""
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
