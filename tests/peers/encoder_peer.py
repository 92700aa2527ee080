"""One peer, one case, one turn: loads the model, encodes the first batch, then times all batches. Prints one JSON line.

    python tests/peers/encoder_peer.py PEER MODEL IDS VECTORS

Run by bench_encoders.py, one process per turn, so that load time and peak memory are each peer's own. Texts are tokenized
before; batches are 32 texts of nearly equal length, as sentence-transformers makes them.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

BATCH = 32
THREADS = len(os.sched_getaffinity(0))


def batches(path: Path):
    """Padded batches, the longest texts first, and the rows of each."""
    rows = [json.loads(line)["input_ids"] for line in path.read_text().splitlines()]
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        longest = max(len(rows[row]) for row in chosen)
        ids = np.ones((len(chosen), longest), dtype=np.int64)
        mask = np.zeros_like(ids)
        for at, row in enumerate(chosen):
            ids[at, : len(rows[row])] = rows[row]
            mask[at, : len(rows[row])] = 1
        yield chosen, ids, mask


def load(peer: str, model: Path):
    """A function from tokens and mask to vectors."""
    library, _, precision = peer.rpartition(" ")
    if library == "sentence-transformers":
        import torch
        from encoder_models import pooled
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(THREADS)
        dtype = {"f32": "float32", "bf16": "bfloat16"}[precision]
        module = pooled(SentenceTransformer(str(model), device="cpu", model_kwargs={"dtype": dtype}))

        def run(ids, mask):
            with torch.inference_mode():
                return module(torch.from_numpy(ids), torch.from_numpy(mask)).float().numpy()

        return run
    if library == "ONNX Runtime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        path = model.with_name(model.name + ("-int8.onnx" if precision == "int8" else ".onnx"))
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return lambda ids, mask: session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    import openvino

    config = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(str(model.with_suffix(".xml")), "CPU", config)
    request = compiled.create_infer_request()
    return lambda ids, mask: request.infer([ids, mask])[0].copy()


def main() -> None:
    peer, model, ids, vectors = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    work = list(batches(ids))
    started = time.perf_counter()
    run = load(peer, model)
    load_seconds = time.perf_counter() - started
    for _, ids, mask in (work[0], work[-1]):
        run(ids, mask)
    started = time.perf_counter()
    results = [run(ids, mask) for _, ids, mask in work]
    seconds = time.perf_counter() - started
    rows = [None] * sum(len(chosen) for chosen, _, _ in work)
    for (chosen, _, _), result in zip(work, results):
        for row, vector in zip(chosen, result):
            rows[row] = vector
    np.asarray(rows, dtype=np.float32).tofile(vectors)
    tokens = int(sum(mask.sum() for _, _, mask in work))
    # Not getrusage: it includes the process that this one was forked from.
    status = Path("/proc/self/status").read_text()
    memory = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) << 10
    print(json.dumps({"seconds": seconds, "tokens": tokens, "load_seconds": load_seconds, "peak_memory": memory}))


if __name__ == "__main__":
    main()
