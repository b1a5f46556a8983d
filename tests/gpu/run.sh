#!/usr/bin/env bash
# Runs the GPU suite on a machine with an NVIDIA GPU, out of what pack.sh packed, and prints its tables. `run.sh [FOLDER]`: models are written to FOLDER (16 GB; the page cache must hold them).
set -uo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
[ -f "$here/hip-tests" ] || tar -C "$here" -xJf "$here/gpu.tar.xz"
models="${1:-/tmp/hearth-models}"
mkdir -p "$models"
export HEARTH_HIP_LIBRARY="$here/libforward.so"
failed=0
check() { echo "== $1"; shift; "$@" || { failed=1; return 1; }; }

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
check "the HIP path and the kernels" "$here/hip-tests" --quiet
check "models against independent references" env HEARTH_ORACLE="$here/oracle" "$here/oracle-tests" --nocapture --test-threads 1 default_device
[ -f "$models/8b.gguf" ] || check "an 8B-shaped file" "$here/write-model" 8b-q4_k_m "$models/8b.gguf"
[ -f "$models/8b-b.gguf" ] || cp "$models/8b.gguf" "$models/8b-b.gguf"
upload="$here/upload.txt"
check "uploads and swaps" "$here/bench-upload" "$models/8b.gguf" "$models/8b-b.gguf" | tee "$upload"
[ "${PIPESTATUS[0]}" = 0 ] || failed=1
link=$(sed -n 's/^page-locked memory to device *\([0-9.]*\) GB.*/\1/p' "$upload")
driver=$(sed -n 's/^driver start, context, kernels *\([0-9.]*\)ms.*/\1/p' "$upload")
check "tokens a second" "$here/bench-tokens" "$models/8b.gguf"
check "starts and take-overs" "$here/bench-first-token" "$models/8b.gguf" "${link:-55}" "${driver:-370}"
exit "$failed"
