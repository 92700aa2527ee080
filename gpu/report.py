"""Put the results of gpu/device.sh together: one table here, all numbers in gpu-report.json.

    python3 report.py WORK OUT

Reads WORK/steps.jsonl (what was run), WORK/results.jsonl (what the steps found) and OUT/clocks.csv (clocks and power,
five times a second). Exit status 1 when a check failed.
"""

import json
import platform
import statistics
import sys
from datetime import datetime
from pathlib import Path

# What the engine is meant to reach: name, least.
BARS = [
    ("share of the sustained rate, xl, 128 tokens", 0.65),
    ("times torch, xl, 128 tokens", 1.3),
    ("times torch, xl, udhr", 1.3),
    ("share of the bare engine through the pool, xlmr-large", 0.9),
]


def read_lines(path):
    """JSON, one value a line; a line that was cut off is left out."""
    values = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            values.append(json.loads(line))
        except ValueError:
            pass
    return values


def read_clocks(path):
    """Time, SM clock, memory clock, watts, degrees."""
    samples = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            when, *numbers = (part.strip() for part in line.split(","))
            when = datetime.strptime(when, "%Y/%m/%d %H:%M:%S.%f").timestamp()
            samples.append((when, *map(float, numbers)))
        except ValueError:
            pass
    return samples


def clocks_of(samples, start, end):
    """Medians and extremes while a step ran, of the samples in which the card was busy."""
    inside = [sample for sample in samples if start <= sample[0] <= end]
    if not inside:
        return None
    watts = [sample[3] for sample in inside]
    busy = [sample for sample in inside if sample[3] >= 0.5 * max(watts)]
    return {
        "sm_mhz": statistics.median(sample[1] for sample in busy),
        "watts": statistics.median(sample[3] for sample in busy),
        "most_watts": max(watts),
        "most_degrees": max(sample[4] for sample in inside),
        "samples": len(inside),
    }


def facts(results, step):
    """All facts of the runs of a step that say what they are about."""
    return [
        value
        for result in results
        if result["step"] == step
        for value in result["facts"].values()
        if isinstance(value, dict)
    ]


def find(values, **wanted):
    for value in values:
        about = value.get("about", value)
        if all(about.get(key) == expected for key, expected in wanted.items()):
            return value
    return {}


def summary(results):
    """The numbers of docs/gpu: rates by model and length, shares, and what they are held against."""
    speeds, peers, pools = facts(results, "speed"), facts(results, "torch-speed"), facts(results, "pool")
    rates = []
    for value in speeds:
        if "about" not in value:
            continue
        about = value["about"]
        torch = find(peers, geometry=about["geometry"], lengths=about["lengths"], batch_tokens=about["batch_tokens"])
        rates.append(
            {
                **about,
                **{
                    key: value.get(key)
                    for key in (
                        "tokens_per_second",
                        "overall",
                        "low",
                        "high",
                        "milliseconds",
                        "tflops",
                        "share_of_burst",
                        "share_of_sustained",
                    )
                },
                "torch": torch.get("torch"),
                "times_torch": torch.get("times"),
            }
        )
    xl = {"geometry": "xl", "lengths": "128", "lanes": 2, "batch_tokens": 16_384}
    peer = {"geometry": "xl", "batch_tokens": 16_384}
    reached = [
        find(speeds, **xl).get("share_of_sustained"),
        find(peers, **peer, lengths="128").get("times"),
        find(peers, **peer, lengths="udhr").get("times"),
        find(pools, geometry="xlmr-large").get("share"),
    ]
    bars = [
        {"what": what, "least": least, "reached": value, "met": value is not None and value >= least}
        for (what, least), value in zip(BARS, reached)
    ]
    ceilings = next((result["facts"] for result in results if result["step"] == "torch-ceilings"), {})
    return {
        "ceilings": ceilings,
        "rates": rates,
        "torch": peers,
        "pool": pools,
        "latency": facts(results, "latency"),
        "streamed": facts(results, "streamed"),
        "bars": bars,
    }


def percent(value):
    return None if value is None else 100 * value


def shown(value):
    """Rates without decimals, small numbers with one or two."""
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if value >= 10_000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(rate):
    return 50 * (rate["high"] - rate["low"]) / rate["tokens_per_second"]


# Heading, width, and the value of a rate.
COLUMNS = [
    ("model", 11, lambda rate: rate["geometry"]),
    ("ids", 6, lambda rate: rate["batch_tokens"]),
    ("lengths", 7, lambda rate: rate["lengths"]),
    ("lanes", 5, lambda rate: rate["lanes"]),
    ("tok/s", 9, lambda rate: rate["tokens_per_second"]),
    ("±%", 5, spread),
    ("TFLOP/s", 7, lambda rate: rate["tflops"]),
    ("burst%", 6, lambda rate: percent(rate["share_of_burst"])),
    ("sust.%", 6, lambda rate: percent(rate["share_of_sustained"])),
    ("torch", 9, lambda rate: rate["torch"]),
    ("times", 5, lambda rate: rate["times_torch"]),
]


def print_summary(found):
    numbers = {name: value for name, value in found["ceilings"].items() if isinstance(value, float)}
    if numbers:
        print("\nceilings, by torch: " + ", ".join(f"{name} {value:.4g}" for name, value in numbers.items()))
    if found["rates"]:
        print("\n" + " ".join(f"{name:>{width}}" for name, width, _ in COLUMNS))
    for rate in found["rates"]:
        print(" ".join(f"{shown(value(rate)):>{width}}" for _, width, value in COLUMNS))
    for value in found["torch"]:
        if "ours" in value:
            case = f"{value['geometry']} {value['lengths']}"
            kind, times = value["attention"], value["times"]
            rates = f"ours {value['ours']:.0f}, torch {value['torch']:.0f} tok/s ({kind})"
            print(f"in turns, {case}: {rates}, {times:.2f} times")
    for value in found["pool"]:
        case, share = f"{value['geometry']} {value['lengths']}", 100 * value["share"]
        print(f"pool, {case}: {value['pool']:.0f} tok/s, {share:.1f} % of the bare engine")
    for value in found["latency"]:
        median, slow = value["median_ms"], value["p95_ms"]
        print(f"latency, {value['geometry']}, {value['length']} ids: {median:.3f} ms, 95th percentile {slow:.3f} ms")
    for value in found["streamed"]:
        if "share" in value:
            share, rate = percent(value["share"]), value["gigabytes_per_second"]
            print(f"streamed layers: {share:.1f} % of the rate on the device, {rate:.1f} GB/s copied meanwhile")
    for bar in found["bars"]:
        if bar["reached"] is not None:
            result = "met" if bar["met"] else "MISSED"
            print(f"bar: {bar['what']}: {bar['reached']:.3f}, at least {bar['least']}: {result}")


def main():
    work, out = map(Path, sys.argv[1:3])
    steps, results, samples = (
        read_lines(work / "steps.jsonl"),
        read_lines(work / "results.jsonl"),
        read_clocks(out / "clocks.csv"),
    )
    failed = 0
    print(f"{'step':<24} {'result':<8} {'s':>6} {'SM MHz':>7} {'W':>5}")
    for step in steps:
        status = step["status"]
        result = (
            "skipped"
            if status == "skipped"
            else "ok" if status == 0 else "no time" if status in (124, 137) else "FAILED"
        )
        failed += result in ("no time", "FAILED")
        seconds, clocks = "", None
        if "start" in step:
            step["seconds"] = step["end"] - step["start"]
            step["clocks"] = clocks = clocks_of(samples, step["start"], step["end"])
            seconds = f"{step['seconds']:.1f}"
        step["result"] = result
        shown = f"{clocks['sm_mhz']:>7.0f} {clocks['watts']:>5.0f}" if clocks else ""
        print(f"{step['name']:<24} {result:<8} {seconds:>6} {shown}")
    for result in results:
        if result.get("skipped"):
            print(f"{result['step']} {result['skipped']}")
        for failure in result["failures"]:
            print(f"FAILED {result['step']}: {failure}"[:300])
    found = summary(results)
    print_summary(found)
    report = {
        "made": datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": platform.platform(),
        "passed": failed == 0,
        "steps": steps,
        "summary": found,
        "results": results,
    }
    path = out / "gpu-report.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{'all steps passed' if failed == 0 else f'{failed} steps FAILED'}; {path}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
