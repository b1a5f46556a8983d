#!/usr/bin/env bash
# Compiles the kernels for every GPU target and looks at the machine code: dot products in the matrix-vector kernels, matrix instructions in the matrix kernels, no registers spilled to memory.
# Prints a table; fails if anything is missing. Needs clang 19 or newer and LLVM's tools of the same version; CUDA's ptxas (HIP_PTXAS, or on PATH) where there is one.
set -euo pipefail
cd "$(dirname "$0")"
clang="${HIP_CLANG:-clang++-19}"
tools="$(dirname "$(readlink -f "$(command -v "$clang")")")"
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
flags=(-std=c++20 -O3 -Wall -Wextra -Werror -Wno-unused-command-line-argument)
failed=0

# What must occur in a kernel's code: matrix-vector kernels, matrix kernels, by target. gfx1030 has no matrix cores: it multiplies pairs.
dot_of() { case "$1" in gfx11* | gfx12*) echo v_dot4_i32_iu8 ;; *) echo 'v_dot4c?_i32_i8' ;; esac; }
matrix_of() { case "$1" in gfx90a | gfx942) echo v_mfma_f32_16x16x16 ;; gfx1030) echo 'v_dot2c?_f32_f16' ;; *) echo v_wmma_f32_16x16x16_f16 ;; esac; }

# Occurrences of a pattern in the disassembly of one kernel.
count_in() { awk -v name="<$2>:" '$2 == name { on = 1; next } /^[0-9a-f]+ </ { on = 0 } on' "$1" | grep -cE "$3" || true; }

printf '%-8s %8s %8s %8s %8s %8s %8s %8s\n' target kernels matvec_1 gated_1 matmul_64 matfew_64 attention spilled
for target in gfx90a gfx942 gfx1030 gfx1100 gfx1201; do
    "$clang" -x hip --cuda-device-only --no-gpu-bundle-output --offload-arch=$target -nogpuinc -nogpulib "${flags[@]}" kernels.hip -o "$out/$target"
    "$tools/llvm-objdump" -d "$out/$target" >"$out/$target.s"
    "$tools/llvm-readelf" --notes "$out/$target" >"$out/$target.notes"
    kernels=$(grep -c '\.name: .*[a-z]' "$out/$target.notes" || true)
    dot=$(dot_of $target) matrix=$(matrix_of $target)
    counts=("$(count_in "$out/$target.s" matvec_1 "$dot")" "$(count_in "$out/$target.s" gated_matvec_1 "$dot")"
        "$(count_in "$out/$target.s" matmul_64 "$matrix")" "$(count_in "$out/$target.s" matfew_64 "$matrix")" "$(count_in "$out/$target.s" attention_prefill_128 "$matrix")")
    # Memory of a thread's own counts too: an array lies there that found no registers.
    spilled=$(awk '/\.name:/ { name = $2 } /\.(private_segment_fixed_size|sgpr_spill_count|vgpr_spill_count):/ && $2 > 0 { print name }' "$out/$target.notes" | uniq | tr '\n' ' ')
    printf '%-8s %8s %8s %8s %8s %8s %8s %8s\n' $target "$kernels" "${counts[@]}" "${spilled:-none}"
    for count in "${counts[@]}"; do [ "$count" -gt 0 ] || failed=1; done
    [ -z "$spilled" ] || failed=1
done

"$clang" -x cuda --cuda-device-only --cuda-gpu-arch=sm_90 --cuda-feature=+ptx80 -nocudainc -nocudalib "${flags[@]}" -S kernels.hip -o "$out/sm_90.ptx"
of_kernel() { awk -v name=" $1(" 'index($0, ".entry" name) { on = 1 } on; on && /^}/ { on = 0 }' "$out/sm_90.ptx" | grep -cE "$2" || true; }
counts=("$(of_kernel matvec_1 dp4a)" "$(of_kernel gated_matvec_1 dp4a)" "$(of_kernel matmul_64 mma.sync)" "$(of_kernel matfew_64 mma.sync)" "$(of_kernel attention_prefill_128 mma.sync)")
spilled='not assembled: no ptxas'
ptxas="${HIP_PTXAS:-$(command -v ptxas || true)}"
if [ -n "$ptxas" ]; then
    "$ptxas" -arch=sm_90 -v "$out/sm_90.ptx" -o "$out/sm_90.cubin" 2>"$out/sm_90.log"
    spilled=$(awk '/Compiling entry function/ { name = $7 } /spill stores/ && $5 > 0 { print name, $5 }' "$out/sm_90.log" | tr -d "'" | tr '\n' ' ')
    [ -z "${spilled// /}" ] || failed=1
fi
printf '%-8s %8s %8s %8s %8s %8s %8s %8s\n' sm_90 "$(grep -c '\.entry' "$out/sm_90.ptx")" "${counts[@]}" "${spilled:-none}"
for count in "${counts[@]}"; do [ "$count" -gt 0 ] || failed=1; done
[ $failed = 0 ] || { echo "check-images: an instruction is missing or registers are spilled"; exit 1; }
