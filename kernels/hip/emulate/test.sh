#!/usr/bin/env bash
# Runs the HIP tests without a GPU: Rust's HIP path -> the forwarding library -> the stand-in for the CUDA driver -> the kernels, compiled for the host.
# Usage: test.sh [orders...], from the repository's root. Orders are those of HEARTH_EMULATE_ORDER; "asan" stands for one run under the address sanitizer.
set -euo pipefail
orders=("$@")
[ ${#orders[@]} -gt 0 ] || orders=(forward reverse 1 2 asan)

clang="${HIP_CLANG:-clang++-19}"
command -v "$clang" >/dev/null || { echo "test-hip compiles kernels with clang 19 or newer: put $clang on PATH, or set HIP_CLANG"; exit 1; }

# Apart from the usual builds: these embed the kernels' host library where those embed the images for GPUs.
target="$PWD/target/hip"
export CARGO_TARGET_DIR="$target"
cargo build --quiet --locked -p forward -p emulate
mkdir -p "$target/stand-in"
cp "$target/debug/libemulate.so" "$target/stand-in/libcuda.so.1"
export HEARTH_HIP_LIBRARY="$target/debug/libforward.so"
export HEARTH_HIP_TARGETS HEARTH_EMULATE_ORDER HEARTH_STAND_IN="$target/stand-in"
# What runs finds the stand-in where the driver would be; cargo and the compilers do not see it.
run() { cargo "--config=target.'cfg(all())'.runner='$PWD/kernels/hip/emulate/runner.sh'" test --quiet --locked "$@"; }

for order in "${orders[@]}"; do
    echo "== the HIP path on the CPU, thread order: $order"
    if [ "$order" = asan ]; then
        HEARTH_HIP_TARGETS=host-asan
        HEARTH_EMULATE_ORDER=forward
        HEARTH_ASAN_RUNTIME="$("$clang" -print-file-name=libclang_rt.asan-x86_64.so)"
        [ -f "$HEARTH_ASAN_RUNTIME" ] || { echo "$clang has no shared runtime of the address sanitizer"; exit 1; }
        export HEARTH_ASAN_RUNTIME
    else
        HEARTH_HIP_TARGETS=host
        HEARTH_EMULATE_ORDER="$order"
    fi
    run -p kernels --test hip --test planted
    # What every device must do: operations against the reference, then whole models through the engine.
    if [ "$order" = "${orders[0]}" ]; then
        run -p kernels --test ops
        run -p engine --test worker -- naive batching experts
    fi
    unset HEARTH_ASAN_RUNTIME
done
