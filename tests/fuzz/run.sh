#!/usr/bin/env bash
# Fuzzes every target for SECONDS (20 unless given), one after the other, and exits with 1 if any of them found something.
#
#   tests/fuzz/run.sh [SECONDS]
#
# Needs cargo and a C++ compiler. Where HEARTH_ORACLE is set, its broken files are seeds, too. Corpora stay below target/fuzz and each run goes on from them; what was found lies beside them.
set -uo pipefail
cd "$(dirname "$0")"
seconds="${1:-20}"
out="../../target/fuzz"

# Inputs are short where they are interesting, and frames have a limit. Those are also few enough that near misses of a comparison can be kept.
declare -A options=(
    [directory]="-max_len=4096"
    [tokenizer]="-max_len=1024"
    [tokenizer_metadata]="-max_len=8192"
    [chat]="-max_len=2048"
    [frames]="-max_len=2304 -use_value_profile=1"
)
targets=(directory tokenizer tokenizer_metadata chat frames)

cargo build --release --locked --bins || exit 1
programs="$out/$(rustc -vV | sed -n 's/^host: //p')/release"

found=0
for target in "${targets[@]}"; do
    corpus="$out/corpus/$target" artifacts="$out/artifacts/$target/" log="$out/$target.log"
    mkdir -p "$corpus" "$artifacts"
    # shellcheck disable=SC2086 # options are words
    RUST_BACKTRACE=0 "$programs/$target" ${options[$target]} -max_total_time="$seconds" -timeout=10 -rss_limit_mb=512 \
        -artifact_prefix="$artifacts" -print_final_stats=1 "$corpus" >"$log" 2>&1
    status=$?
    executions="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    coverage="$(sed -n 's/.* cov: \([0-9]*\) ft: .*/\1/p' "$log" | tail -n 1)"
    printf '%-20s %12s executions %8s edges  %s\n' "$target" "${executions:-?}" "${coverage:-?}" "$([ $status = 0 ] && echo ok || echo "FOUND (exit $status)")"
    if [ $status != 0 ]; then
        found=1
        grep -vE '^(#[0-9]+	|INFO|WARNING)' "$log" | tail -n 40
        artifact="$(sed -n "s/.*Test unit written to //p" "$log" | tail -n 1)"
        [ -n "$artifact" ] && echo "input (hex): $(od -An -v -tx1 "$artifact" | tr -d ' \n')"
    fi
done
exit $found
