#!/usr/bin/env bash
# Puts everything that a machine with a GPU needs into .gpu: copy that folder there and run `bash .gpu/device.sh`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
kit=.gpu
most_mib=48
# The oldest system that the binary is meant for.
newest_glibc=2.36

target=${CARGO_TARGET_DIR:-target}
start=$SECONDS
# Without Lance and DataFusion: about a quarter of the crates of the whole program.
cargo build --release --locked --package polylance-gpu-bench
echo "built in $((SECONDS - start)) s"

rm -rf "$kit"
mkdir -p "$kit/goldens"
strip -o "$kit/polylance-gpu-bench" "$target/release/polylance-gpu-bench"
goldens=crates/encoder/tests/goldens
cp -r "$goldens"/{goldens,heads}.{json,safetensors} "$goldens/saved" "$kit/goldens/"
cp gpu/{device.sh,peer.py,torch_model.py,report.py,udhr-lengths.txt,README.md} "$kit/"

binary=$kit/polylance-gpu-bench
glibc=$(objdump -T "$binary" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -Vu | tail -n 1)
if [ "$(printf '%s\n' "$glibc" "$newest_glibc" | sort -V | tail -n 1)" != "$newest_glibc" ]; then
    echo "error: the binary needs glibc $glibc, newer than $newest_glibc" >&2
    exit 1
fi
if objdump -p "$binary" | grep -E 'NEEDED.*(cuda|nvidia|cublas)'; then
    echo "error: the binary is linked with NVIDIA's libraries: the driver is to be found at run time" >&2
    exit 1
fi
du -h --apparent-size --max-depth=1 --all "$kit"
size=$(du --apparent-size --summarize --block-size=1M "$kit" | cut -f1)
if [ "$size" -gt "$most_mib" ]; then
    echo "error: $kit has $size MiB, at most $most_mib are meant to be copied" >&2
    exit 1
fi
echo "$kit: $size MiB, needs glibc $glibc"
