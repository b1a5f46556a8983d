#!/usr/bin/env bash
# Runs one test program with the stand-in where it looks for the CUDA driver, under the address sanitizer if its runtime is named.
export LD_LIBRARY_PATH="$HEARTH_STAND_IN${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
if [ -n "${HEARTH_ASAN_RUNTIME:-}" ]; then
    # Rust's own allocations live as long as the process where they should: leaks are not what this looks for.
    export LD_PRELOAD="$HEARTH_ASAN_RUNTIME" ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1"
fi
exec "$@"
