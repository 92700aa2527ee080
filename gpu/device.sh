#!/usr/bin/env bash
# Checks and measures the GPU engine on this machine: correctness first, then speed, compared with PyTorch where
# that is installed.
#
#   gpu/device.sh           everything, in at most six minutes
#   gpu/device.sh quick     ceilings, kernels, goldens, batches, one speed: in at most 100 seconds
#   gpu/device.sh --tiny    tiny sizes, to try the script on a machine whose driver is emulated
#
# Takes polylance-gpu-bench from this folder, or from the neighbouring .gpu (`make gpu-kit`). Results go to $OUT, or gpu-out:
# gpu-report.json, run.log, clocks.csv. A step that fails or hangs ends alone. The card's settings are left as they are.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
part=all tiny=
for argument in "$@"; do
    case "$argument" in
        all | quick) part=$argument ;;
        --tiny) tiny=1 ;;
        *) echo "usage: device.sh [quick|all] [--tiny]" >&2; exit 2 ;;
    esac
done

first_of() { for path in "$@"; do [ -e "$path" ] && echo "$path" && return; done; }
bench=${POLYLANCE_GPU_BENCH:-$(first_of "$here/polylance-gpu-bench" "$here/../.gpu/polylance-gpu-bench")}
goldens=$(first_of "$here/goldens" "$here/../crates/encoder/tests/goldens")
if [ ! -x "$bench" ]; then
    echo "device.sh: no polylance-gpu-bench: make it with \`make gpu-kit\`, or name it in POLYLANCE_GPU_BENCH" >&2
    exit 2
fi
out=${OUT:-gpu-out}
mkdir -p "$out" && out=$(cd "$out" && pwd)
work=$(mktemp -d)
results=$work/results.jsonl steps=$work/steps.jsonl log=$out/run.log
: >"$results" && : >"$steps" && : >"$log"
export PYTHONUNBUFFERED=1

limit=360
[ "$part" = quick ] && limit=100
[ -n "$tiny" ] && limit=900
deadline=$((SECONDS + limit))

sampler=
if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=timestamp,clocks.sm,clocks.mem,power.draw,temperature.gpu --format=csv,noheader,nounits \
        --loop-ms=200 >"$out/clocks.csv" 2>/dev/null &
    sampler=$!
fi
trap '[ -n "$sampler" ] && kill "$sampler" 2>/dev/null; rm -rf "$work"' EXIT

# NAME SECONDS COMMAND…: what it prints goes to the log, and here what failed.
step() {
    local name=$1 most=$2 left=$((deadline - SECONDS)) start end status
    shift 2
    if ((left < 4)); then
        echo "$name: skipped, no time is left"
        printf '{"name": "%s", "status": "skipped"}\n' "$name" >>"$steps"
        return
    fi
    ((most > left)) && most=$left
    start=$(date +%s.%N)
    # The shell's own words on a step that was aborted go nowhere.
    { timeout --kill-after=2 "$most" "$@" >"$work/step.log" 2>&1; } 2>/dev/null
    status=$?
    end=$(date +%s.%N)
    { echo "== $name: $*"; cat "$work/step.log"; echo; } >>"$log"
    case $status in
        0) echo "$name: $(tail -n 1 "$work/step.log")" ;;
        *)
            echo "$name: FAILED with status $status, within $most s"
            { grep -E 'FAIL|[Ee]rror|ERROR|abort|=========' "$work/step.log" || tail -n 5 "$work/step.log"; } |
                cut -c1-300 | head -n 8
            ;;
    esac
    printf '{"name": "%s", "status": %d, "limit": %d, "start": %s, "end": %s}\n' \
        "$name" "$status" "$most" "$start" "$end" >>"$steps"
}
ours() { # NAME SECONDS STEP…
    local name=$1 most=$2
    shift 2
    step "$name" "$most" "$bench" "$@" --json "$results"
}
peer() { # NAME SECONDS STEP…
    local name=$1 most=$2
    shift 2
    step "$name" "$most" python3 "$here/peer.py" "$@" --json "$results"
}
# Under a sanitizer every access is checked: one pass of a tiny model.
sanitize() { # TOOL SECONDS
    if command -v compute-sanitizer >/dev/null; then
        step "$1" "$2" compute-sanitizer --tool "$1" --error-exitcode 3 "$bench" tiny --patience "$2"
    else
        echo "$1: skipped, no compute-sanitizer"
        printf '{"name": "%s", "status": "skipped"}\n' "$1" >>"$steps"
    fi
}
counters() {
    if command -v ncu >/dev/null; then
        step ncu 30 ncu --clock-control none --kernel-name 'regex:gemm_gelu|attention_bf16' --launch-skip 8 \
            --launch-count 4 --section SpeedOfLight --section Occupancy --section LaunchStats \
            --log-file "$out/ncu.txt" \
            "$bench" speed --layers 4 --lengths 512 --lanes 1 --batches 1 --seconds 0 --patience 30
    else
        echo "ncu: skipped, it is not here"
        printf '{"name": "ncu", "status": "skipped"}\n' >>"$steps"
    fi
}

if [ -n "$tiny" ]; then
    ours info 20 info
    peer ceilings 60 ceilings --tiny
    ours kernels 120 kernels --small --patience 60
    ours goldens 120 goldens "$goldens" --only bert-small --only xl-question --only xlmr-causal-lm
    ours batchings 60 batchings --geometry tiny --sequences 8 --batches 4 --tokens 512 --longest 70
    ours speed 60 speed --geometry tiny --tokens 256 --lengths 64,udhr --batches 4 --seconds 0.5 --profile \
        --ceilings "$results"
    if [ "$part" = all ]; then
        ours tiny 60 tiny
        sanitize memcheck 60
        sanitize racecheck 60
        ours layers 30 layers "$work/layers" --geometry tiny --layers 2 --tokens 200
        peer torch-layers 60 layers "$work/layers" --tiny
        peer torch-speed 120 speed --tiny --bench "$bench" --rounds 1 --seconds 0.3 --batches 4
        ours pool 60 pool --geometry tiny --tokens 512 --batches 4
        ours latency 30 latency --geometry tiny --rounds 5
        ours memory 60 memory --leave 3500 --small tiny --large xl
        FAKE_CUDA_MEMORY=560000000 ours streamed 60 streamed --geometry tiny --layers 5 --tokens 256 --batches 4 \
            --seconds 0.5
    fi
elif [ "$part" = quick ]; then
    ours info 10 info
    peer ceilings 45 ceilings --sustained 2 --tokens 16384
    ours kernels 40 kernels
    ours goldens 30 goldens "$goldens"
    ours batchings 30 batchings
    ours speed 20 speed --lengths 128 --profile --ceilings "$results"
else
    ours info 10 info
    peer ceilings 60 ceilings
    # Does it compute the right thing?
    ours kernels 50 kernels
    ours goldens 40 goldens "$goldens"
    ours batchings 40 batchings
    ours batchings-f32 20 batchings --geometry e5-small --dtype f32 --batches 10 --tokens 8192
    sanitize memcheck 40
    sanitize racecheck 30
    ours layers-xl 15 layers "$work/xl" --geometry xl
    ours layers-e5-small 15 layers "$work/e5-small" --geometry e5-small --layers 12
    peer torch-layers 45 layers "$work/xl" "$work/e5-small"
    # How fast?
    ours speed-xl 45 speed --lengths 128,512,udhr --lanes 1,2 --seconds 1.2 --profile --ceilings "$results"
    ours speed-xl-32k 30 speed --tokens 32768 --lengths 128,udhr --batches 60 --seconds 6 --ceilings "$results"
    ours speed-e5-small 15 speed --geometry e5-small --tokens 65536 --lengths udhr --seconds 1 --batches 100 --profile \
        --ceilings "$results"
    peer torch-speed 100 speed --bench "$bench" --seconds 1.2
    ours latency 15 latency
    ours pool 30 pool --geometry xlmr-large
    ours pool-e5-small 15 pool --geometry e5-small
    ours memory 25 memory
    ours streamed 40 streamed --patience 30
    # Only with GPU_POOL_XL=1: a checkpoint of 7 GB is written and read.
    [ -n "${GPU_POOL_XL:-}" ] && ours pool-xl 90 pool --geometry xl --patience 60
    counters
fi

[ -n "$sampler" ] && kill "$sampler" 2>/dev/null
echo
python3 "$here/report.py" "$work" "$out"
