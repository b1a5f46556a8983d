#!/usr/bin/env bash
# Packs what a machine with an NVIDIA GPU needs to run the GPU suite: `pack.sh FOLDER REFERENCES_BYTES`, from the repository's root. There, `FOLDER/run.sh` runs it.
# HEARTH_ORACLE names the references: so many bytes of their models and quantised files go along that the whole stays below 60 MB.
# Needs clang 19 or newer; with CUDA's ptxas (HIP_PTXAS, or on PATH) kernels load at once, without it the driver compiles them at each start.
set -euo pipefail
folder="${1:?usage: pack.sh FOLDER REFERENCES_BYTES}"
references_bytes="${2:?usage: pack.sh FOLDER REFERENCES_BYTES}"
target="$PWD/target/gpu"
export CARGO_TARGET_DIR="$target" HEARTH_HIP_TARGETS=sm_90
cargo build --release --locked -p forward --lib
cargo build --release --locked -p e2e --bins
cargo build --release --locked -p kernels --example bench-kernels
executable() { cargo test --release --locked -p "$1" --test "$2" --no-run --message-format=json | sed -n "s/.*\"executable\":\"\([^\"]*\/$2-[^\"]*\)\".*/\1/p"; }
rm -rf "$folder"
mkdir -p "$folder"
for program in e2e-node write-model bench-upload bench-first-token bench-tokens; do
    strip -o "$folder/$program" "$target/release/$program"
done
strip -o "$folder/bench-kernels" "$target/release/examples/bench-kernels"
strip -o "$folder/hip-tests" "$(executable kernels hip)"
strip -o "$folder/oracle-tests" "$(executable e2e oracle)"
strip -o "$folder/libforward.so" "$target/release/libforward.so"
cp tests/gpu/run.sh "$folder/"
python3 tests/gpu/references.py "${HEARTH_ORACLE:?must name the folder of references}" "$folder/oracle" "$references_bytes"
tar -C "$folder" -cf - . | xz -T0 -6 >"$folder.tar.xz"
rm -r "$folder"
mkdir -p "$folder"
mv "$folder.tar.xz" "$folder/gpu.tar.xz"
cp tests/gpu/run.sh "$folder/"
size=$(du -sm "$folder" | cut -f1)
echo "$folder: $size MB"
[ "$size" -le 60 ] || { echo "more than 60 MB"; exit 1; }
