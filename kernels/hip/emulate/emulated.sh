#!/usr/bin/env bash
# Runs tests on the HIP path without a GPU: Rust's HIP path -> the forwarding library -> the stand-in for the CUDA driver -> the kernels, compiled for the host.
# Usage: emulated.sh ORDER ARGUMENTS..., from the repository's root. ORDER is one of HEARTH_EMULATE_ORDER, or "asan" for a run under the address sanitizer, or a layout of matrix tiles ("plain", "mma",
# "mfma", "wmma11", "wmma12": matrix_core.h) for a run with it; the arguments are those of `cargo test`.
set -euo pipefail
order="$1"
shift
clang="${HIP_CLANG:-clang++-19}"
command -v "$clang" >/dev/null || { echo "the emulation compiles kernels with clang 19 or newer: put $clang on PATH, or set HIP_CLANG"; exit 1; }

# Apart from the usual builds: these embed the kernels' host library where those embed the images for GPUs.
target="$PWD/target/hip"
export CARGO_TARGET_DIR="$target"
cargo build --quiet --locked -p forward -p emulate
mkdir -p "$target/stand-in"
# A file of its own each time: a run that is under way keeps the one that it has.
cp --remove-destination "$target/debug/libemulate.so" "$target/stand-in/libcuda.so.1"
export HEARTH_HIP_LIBRARY="$target/debug/libforward.so" HEARTH_STAND_IN="$target/stand-in"
export HEARTH_HIP_TARGETS=host HEARTH_EMULATE_ORDER="$order"
case "$order" in asan | plain | mma | mfma | wmma11 | wmma12) HEARTH_HIP_TARGETS="host-$order" HEARTH_EMULATE_ORDER=forward ;; esac
if [ "$order" = asan ]; then
    HEARTH_ASAN_RUNTIME="$("$clang" -print-file-name=libclang_rt.asan-x86_64.so)"
    [ -f "$HEARTH_ASAN_RUNTIME" ] || { echo "$clang has no shared runtime of the address sanitizer"; exit 1; }
    export HEARTH_ASAN_RUNTIME
fi
# What runs finds the stand-in where the driver would be; cargo and the compilers do not see it.
exec cargo "--config=target.'cfg(all())'.runner='$PWD/kernels/hip/emulate/runner.sh'" test --quiet --locked "$@"
