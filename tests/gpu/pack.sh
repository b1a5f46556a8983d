#!/usr/bin/env bash
# Packs what a machine with an NVIDIA GPU needs to run the GPU suite: `pack.sh FOLDER`, from the repository's root. There, `FOLDER/run.sh` runs it.
# Needs clang 19 or newer; with CUDA's ptxas (HIP_PTXAS, or on PATH) kernels load at once, without it the driver compiles them at each start.
set -euo pipefail
folder="${1:?usage: pack.sh FOLDER}"
target="$PWD/target/gpu"
export CARGO_TARGET_DIR="$target" HEARTH_HIP_TARGETS=sm_90
cargo build --release --locked -p forward -p e2e --bins
tests=$(cargo test --release --locked -p kernels --test hip --no-run --message-format=json | sed -n 's/.*"executable":"\([^"]*\/hip-[^"]*\)".*/\1/p')
rm -rf "$folder"
mkdir -p "$folder"
for program in e2e-node write-model bench-upload bench-first-token; do
    strip -o "$folder/$program" "$target/release/$program"
done
strip -o "$folder/hip-tests" "$tests"
strip -o "$folder/libforward.so" "$target/release/libforward.so"
cp tests/gpu/run.sh "$folder/"
tar -C "$folder" -cf - . | xz -T0 -6 >"$folder.tar.xz"
rm -r "$folder"
mkdir -p "$folder"
mv "$folder.tar.xz" "$folder/gpu.tar.xz"
cp tests/gpu/run.sh "$folder/"
size=$(du -sm "$folder" | cut -f1)
echo "$folder: $size MB"
[ "$size" -le 60 ] || { echo "more than 60 MB"; exit 1; }
