#!/usr/bin/env bash
# Runs the HIP tests without a GPU: `test.sh [orders...]`, from the repository's root; see emulated.sh for the orders. Without any: some orders, and the layouts of AMD's tiles.
set -euo pipefail
orders=("$@")
[ ${#orders[@]} -gt 0 ] || orders=(forward reverse 1 2 asan plain mfma wmma11 wmma12)
emulated="kernels/hip/emulate/emulated.sh"

for order in "${orders[@]}"; do
    echo "== the HIP path on the CPU, thread order: $order"
    "$emulated" "$order" -p kernels --test hip --test planted
    # What every device must do: operations against the reference, then whole models through the engine; and what a trace shows of a start.
    if [ "$order" = "${orders[0]}" ]; then
        "$emulated" "$order" -p kernels --test ops
        "$emulated" "$order" -p engine --test worker -- naive batching experts cold faults gives_up_its_store
        "$emulated" "$order" -p e2e --test start
    fi
done
