#!/usr/bin/env bash
# Compiles the kernels into one binary: machine code for compute capability 8.0 (and 8.6, 8.9) and for 9.0, and PTX,
# which the driver compiles for everything newer. The same compiler gives the same bytes wherever it runs.
# Usage: build.sh NVCC_BIN_DIR OUT.fatbin
set -euo pipefail
bin="$(cd "$1" && pwd)"
out="$(cd "$(dirname "$2")" && pwd)/$(basename "$2")"
cd "$(dirname "$0")"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

compile() { # architecture
    "$bin/nvcc" -x cu -O3 -std=c++17 -ptx -arch="compute_$1" module.cuh -o "$work/$1.ptx"
    if ! "$bin/ptxas" -arch="sm_$1" -O3 -v "$work/$1.ptx" -o "$work/$1.cubin" 2>"$work/$1.log"; then
        cat "$work/$1.log" >&2
        exit 1
    fi
    # What it warns of slows a kernel down.
    if grep -E "warning|C75[0-9]{2}" "$work/$1.log" >&2; then exit 1; fi
}
compile 80 & portable=$!
compile 90a & hopper=$!
wait "$portable"
wait "$hopper"

# Kernel, registers, bytes of static shared memory, bytes of code; fails where a kernel is over its budget.
report() { # architecture
    # readelf does not know the symbols of GPUs and warns of each.
    readelf -SW "$work/$1.cubin" 2>/dev/null |
        sed -nE 's/.* \.text\.([^ ]+) +PROGBITS +[0-9a-f]+ [0-9a-f]+ ([0-9a-f]+).*/\1 \2/p' |
        while read -r kernel size; do echo "$kernel $((16#$size))"; done >"$work/$1.sizes"
    awk -v architecture="$1" '
        FILENAME ~ /budgets/ {
            if (!NF || $1 ~ /^#/) next
            pattern = $1
            gsub(/\*/, ".*", pattern)
            patterns[++count] = "^" pattern "$"
            budgets[count] = $2
            next
        }
        FILENAME ~ /sizes/ { bytes[$1] = $2; next }
        /Compiling entry function/ { split($0, part, "\047"); kernel = part[2] }
        /bytes stack frame/ { if ($1 || $5 || $9) over = over sprintf("%s spills: %s\n", kernel, $0) }
        /Used [0-9]+ registers/ {
            match($0, /Used [0-9]+/); registers = substr($0, RSTART + 5, RLENGTH - 5)
            shared = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART, RLENGTH - 11) : 0
            for (i = 1; i <= count && kernel !~ patterns[i]; i++);
            if (i > count) over = over sprintf("%s is not in budgets.txt\n", kernel)
            else if (registers + 0 > budgets[i])
                over = over sprintf("%s uses %d registers, more than %d\n", kernel, registers, budgets[i])
            printf "sm_%-4s %-28s %9d %9d %9d\n", architecture, kernel, registers, shared, bytes[kernel] | "sort"
        }
        END { close("sort"); if (over) { printf "error: for sm_%s\n%s", architecture, over >"/dev/stderr"; exit 1 } }
    ' budgets.txt "$work/$1.sizes" "$work/$1.log"
}
printf "%-7s %-28s %9s %9s %9s\n" "" kernel registers shared bytes
report 80
report 90a

"$bin/fatbinary" --create="$work/module.fatbin" -64 --compress-all --compress-mode=size \
    --image3=kind=elf,sm=80,file="$work/80.cubin" --image3=kind=ptx,sm=80,file="$work/80.ptx" \
    --image3=kind=elf,sm=90a,file="$work/90a.cubin"
mv "$work/module.fatbin" "$out"
echo "$(stat -c %s "$out") bytes"
