"""What a GPU can do, and what PyTorch does with the same model: the yardsticks of gpu/device.sh.

    python3 peer.py ceilings               rates of matrix products and copies: what everything is held against
    python3 peer.py layers FOLDER…         the layers that `polylance-gpu-bench layers FOLDER` wrote, computed again
    python3 peer.py speed --bench PROGRAM  tokens per second of PyTorch and of PROGRAM, in turns

Needs torch alone. Every step prints a line for each fact; with --json FILE it appends one line of JSON. --tiny takes
tiny sizes, and a CPU where there is no GPU.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

try:
    import torch

    from torch_model import ATTENTIONS, GEOMETRIES, Batch, Model, attention_for, device, synchronize
except ImportError:
    torch = None

HERE = Path(__file__).resolve().parent


class Report:
    """The results of a step, in the form that polylance-gpu-bench writes."""

    def __init__(self, step, path):
        self.step, self.path, self.started = step, path, time.time()
        self.facts, self.failures, self.skipped = {}, [], None

    def record(self, name, text, value):
        print(f"  {name:<44} {text}", flush=True)
        self.facts[name] = value

    def check(self, name, holds, text, value):
        self.record(name, f"{'ok  ' if holds else 'FAIL'} {text}", value)
        if not holds:
            self.failures.append(f"{name}: {text}")

    def finish(self):
        result = "FAILED" if self.failures else "passed"
        seconds = time.time() - self.started
        print(f"{self.step} {self.skipped or result} in {seconds:.1f} s")
        if self.path:
            line = {
                "step": self.step,
                "arguments": sys.argv[1:],
                "passed": not self.failures,
                "skipped": self.skipped,
                "seconds": seconds,
                "failures": self.failures,
                "facts": self.facts,
            }
            with open(self.path, "a") as file:
                file.write(json.dumps(line) + "\n")
        return 1 if self.failures else 0


def seconds_of(call, least, warmup=3, at_once=5):
    """Seconds a call takes: the mean over at least `least` seconds."""
    for _ in range(warmup):
        call()
    synchronize()
    count, start = 0, time.perf_counter()
    while True:
        for _ in range(at_once):
            call()
        synchronize()
        count += at_once
        elapsed = time.perf_counter() - start
        if elapsed > least:
            return elapsed / count


# ---- Ceilings ----


def ceilings(report, arguments):
    on, tiny = device(), arguments.tiny
    report.record("torch", torch.__version__, torch.__version__)
    size = 256 if tiny else 8192
    a, b = (torch.randn(size, size, device=on, dtype=torch.bfloat16) for _ in range(2))

    def product(name, least, call, operations):
        rate = operations / seconds_of(call, least) / 1e12
        report.record(name, f"{rate:.1f} TFLOP/s", rate)

    # A burst ends before the power limit bites; the sustained rate is what a long run can have.
    product("square_burst_tflops", 0.02, lambda: a @ b, 2 * size**3)
    product("square_sustained_tflops", 0.1 if tiny else arguments.sustained, lambda: a @ b, 2 * size**3)
    if not tiny:
        x = torch.empty(2 << 30, device=on, dtype=torch.uint8)
        y = torch.empty_like(x)
        rate = 2 * x.numel() / seconds_of(lambda: y.copy_(x), 0.2) / 1e12
        report.record("copy_tb_per_s", f"{rate:.2f} TB/s, read and written", rate)
        del x, y
        try:
            qa, qb = a.to(torch.float8_e4m3fn), b.t().contiguous().to(torch.float8_e4m3fn).t()
            one = torch.ones((), device=on)
            scaled = {"scale_a": one, "scale_b": one, "out_dtype": torch.bfloat16}
            product("fp8_tflops", 0.2, lambda: torch._scaled_mm(qa, qb, **scaled), 2 * size**3)
        except Exception as error:  # Not every card and version has it.
            report.record("fp8_tflops", f"not here: {error}"[:120], None)
    hidden, wide = (64, 128) if tiny else (2560, 10240)
    for tokens in [256] if tiny else arguments.tokens:
        for name, n, k in (
            ("qkv", 3 * hidden, hidden),
            ("out", hidden, hidden),
            ("up", wide, hidden),
            ("down", hidden, wide),
        ):
            x, w = torch.randn(tokens, k, device=on, dtype=torch.bfloat16), torch.randn(
                n, k, device=on, dtype=torch.bfloat16
            )
            bias = torch.randn(n, device=on, dtype=torch.bfloat16)
            linear = torch.nn.functional.linear
            product(f"{name}_{tokens}_tflops", 0.01 if tiny else 0.25, lambda: linear(x, w, bias), 2 * tokens * n * k)


# ---- Layers ----


def read_npy(path):
    """A little-endian array of format version 1.0, as polylance-gpu-bench writes it."""
    raw = path.read_bytes()
    end = 10 + int.from_bytes(raw[8:10], "little")
    header = eval(raw[10:end].decode(), {"__builtins__": {}})
    kinds = {"<f4": torch.float32, "<u4": torch.int32}
    return torch.frombuffer(bytearray(raw[end:]), dtype=kinds[header["descr"]]).view(header["shape"])


def cosines(a, b):
    """Of each row, in f64."""
    a, b = a.double(), b.double()
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


def layers(report, arguments):
    for folder in arguments.folders:
        compare_layers(report, folder)


def compare_layers(report, folder):
    about = json.loads((folder / "about.json").read_text())
    settings, on = about["config"], device()
    ours = {name: read_npy(folder / f"{name}.npy").to(on) for name in ("states", "means")}
    batch = Batch(read_npy(folder / "ids.npy").tolist(), read_npy(folder / "borders.npy").tolist())
    dtype = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[about["dtype"]]
    # Nothing is rounded to tf32: this is the reference.
    torch.backends.cuda.matmul.allow_tf32 = False

    def computed(dtype):
        model = Model(settings, dtype)
        if dtype == torch.float32:
            name = "padded SDPA"
            attend = ATTENTIONS[name](batch, settings["num_attention_heads"])
        else:
            name, attend = attention_for(settings, batch, dtype)
        states = model.states(batch, attend).float()
        return name, {"states": states, "means": model.means(states, batch)}

    _, exact = computed(torch.float32)
    kind, peer = computed(dtype)
    case = f"{about['geometry']}, {settings['num_hidden_layers']} layers, {about['dtype']}"
    report.record(f"{case}, torch's attention", kind, kind)
    for name, expected in exact.items():
        error_of = {who: 1.0 - cosines(found[name], expected) for who, found in (("ours", ours), ("torch", peer))}
        mean = {who: error.mean().item() for who, error in error_of.items()}
        most = {who: error.max().item() for who, error in error_of.items()}
        # Where both are exact, nothing but noise is left to compare.
        holds = mean["ours"] <= 1.05 * mean["torch"] + 1e-9 and most["ours"] <= 1.5 * most["torch"] + 1e-8
        text = ", ".join(f"{who} 1 - {mean[who]:.2e} (least 1 - {most[who]:.2e})" for who in ("ours", "torch"))
        report.check(f"{case}, {name}, cosine to f32", holds, text, {"one_minus_mean": mean, "one_minus_least": most})


# ---- Speed ----


def udhr_lengths():
    lines = (HERE / "udhr-lengths.txt").read_text().splitlines()
    return [int(length) for line in lines if not line.startswith("#") for length in line.split()]


def batches(settings, lengths, tokens, count):
    """As crates/gpu-bench/src/workload.rs makes them."""
    articles, words, most = udhr_lengths(), settings["vocab_size"] - 5, 512

    def length_of(sequence):
        if lengths != "udhr":
            return int(lengths)
        return min(articles[sequence * 7919 % len(articles)], most, tokens)

    sequence, made = 0, []
    for _ in range(count):
        ids, borders = [], [0]
        while len(ids) + length_of(sequence) <= tokens:
            ids += [5 + (sequence * 7919 + at * 104_729) % words for at in range(length_of(sequence))]
            borders.append(len(ids))
            sequence += 1
        made.append(Batch(ids, borders))
    return made


def operations(settings, batch):
    hidden, wide = settings["hidden_size"], settings["intermediate_size"]
    maps = 2 * (4 * hidden * hidden + 2 * hidden * wide)
    return settings["num_hidden_layers"] * sum(length * (maps + 4 * length * hidden) for length in batch.lengths)


def torch_rate(model, made, least):
    """Tokens per second from ids to vectors in the host's memory: the median of rounds of two batches. The host waits
    once a round, so that the device has few gaps between batches."""
    kinds = [attention_for(model.settings, batch, model.dtype) for batch in made]
    pairs = list(zip(made, kinds))
    rates, started, number = [], None, 0
    while len(rates) < 4 or time.perf_counter() - started < least:
        some = [pairs[(2 * number + place) % len(pairs)] for place in range(2)]
        start = time.perf_counter()
        means = [model.means(model.states(batch, attend), batch) for batch, (_, attend) in some]
        for vectors in [mean / mean.norm(dim=1, keepdim=True) for mean in means]:
            vectors.cpu()
        if started is None:
            started = time.perf_counter()  # The first round only warms up.
        else:
            rates.append(sum(batch.tokens for batch, _ in some) / (time.perf_counter() - start))
        number += 1
    return statistics.median(rates), kinds[0][0]


def our_rates(arguments, geometry, tokens, lengths):
    """Tokens per second of polylance-gpu-bench, by lengths."""
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        command = [
            arguments.bench,
            "speed",
            "--geometry",
            geometry,
            "--tokens",
            str(tokens),
            "--lengths",
            ",".join(lengths),
            "--lanes",
            "2",
            "--seconds",
            str(arguments.seconds),
            "--batches",
            str(arguments.batches),
            "--json",
            file.name,
            "--patience",
            str(arguments.patience),
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)
        facts = json.loads(Path(file.name).read_text().splitlines()[-1])["facts"]
    return {value["about"]["lengths"]: value["overall"] for value in facts.values() if "about" in value}


def speed(report, arguments):
    geometries = ["tiny"] if arguments.tiny else arguments.geometry
    for geometry in geometries:
        settings, lengths = GEOMETRIES[geometry], ["64", "udhr"] if arguments.tiny else arguments.lengths
        tokens = 256 if arguments.tiny else {"xl": 16_384, "xlmr-large": 32_768, "e5-small": 65_536}[geometry]
        model = Model(settings, torch.bfloat16)
        made = {length: batches(settings, length, tokens, 4) for length in lengths}
        rates = {length: {"torch": [], "ours": []} for length in lengths}
        kinds = {}
        for _ in range(arguments.rounds):
            for length in lengths:
                rate, kinds[length] = torch_rate(model, made[length], arguments.seconds)
                rates[length]["torch"].append(rate)
            if arguments.bench:
                for length, rate in our_rates(arguments, geometry, tokens, lengths).items():
                    rates[length]["ours"].append(rate)
        for length in lengths:
            work = sum(operations(settings, batch) for batch in made[length]) / sum(
                batch.tokens for batch in made[length]
            )
            found = {who: max(those) for who, those in rates[length].items() if those}
            value = {
                "geometry": geometry,
                "dtype": "bf16",
                "batch_tokens": tokens,
                "lengths": length,
                "attention": kinds[length],
                "rounds": rates[length],
                "torch": found["torch"],
                "torch_tflops": found["torch"] * work / 1e12,
            }
            text = f"torch {found['torch']:>9.0f} tok/s, {value['torch_tflops']:.1f} TFLOP/s ({kinds[length]})"
            if "ours" in found:
                ours, times = found["ours"], found["ours"] / found["torch"]
                value |= {"ours": ours, "ours_tflops": ours * work / 1e12, "times": times}
                text += f"; ours {ours:>9.0f} tok/s, {value['ours_tflops']:.1f} TFLOP/s; {times:.2f} times"
            report.record(f"{geometry} bf16 {tokens} ids of {length}", text, value)
        del model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", help="append the results to this file")
    common.add_argument("--tiny", action="store_true", help="tiny sizes, also without a GPU")
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("ceilings", parents=[common])
    step.add_argument("--sustained", type=float, default=3.0, help="seconds of the sustained rate")
    step.add_argument("--tokens", type=lambda text: [int(part) for part in text.split(",")], default=[16_384, 32_768])
    step = steps.add_parser("layers", parents=[common])
    step.add_argument("folders", type=Path, nargs="+")
    step = steps.add_parser("speed", parents=[common])
    step.add_argument("--geometry", type=lambda text: text.split(","), default=["xl", "xlmr-large", "e5-small"])
    step.add_argument("--lengths", type=lambda text: text.split(","), default=["128", "512", "udhr"])
    step.add_argument("--bench", help="polylance-gpu-bench, measured in turns with torch")
    step.add_argument("--rounds", type=int, default=2)
    step.add_argument("--seconds", type=float, default=1.5, help="enough for a rate")
    step.add_argument("--batches", type=int, default=20, help="enough for a rate of ours")
    step.add_argument("--patience", type=int, default=20)
    arguments = parser.parse_args()
    report = Report(f"torch-{arguments.step}", arguments.json)
    if torch is None or not (torch.cuda.is_available() or arguments.tiny):
        report.skipped = "skipped: no torch" if torch is None else "skipped: torch sees no GPU"
        return report.finish()
    try:
        with torch.inference_mode():
            {"ceilings": ceilings, "layers": layers, "speed": speed}[arguments.step](report, arguments)
    except Exception as error:  # What was found before it stays.
        traceback.print_exc()
        report.failures.append(f"{type(error).__name__}: {error}"[:500])
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
