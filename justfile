# Recipes for people and CI. `just check` is what CI runs; `cargo test --workspace` alone needs nothing but cargo.

tools := justfile_directory() / "target" / "tools"
python := tools / "venv" / "bin" / "python"
peer_version := "0.3.36"
peer_flags := "-DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release"
buf := tools / "node_modules" / ".bin" / "buf"
gpu_references_bytes := "44000000"
llvm_cov := env("LLVM_COV", "llvm-cov-22")
llvm_profdata := env("LLVM_PROFDATA", "llvm-profdata-22")
export PATH := tools / "bin" + ":" + env("PATH")

_default:
    @just --list --unsorted

# Everything that must hold on a machine without a GPU.
check: lint test test-aarch64 test-hip oracle-hip check-images oracle test-root test-clients demo-model fuzz coverage _gpu-skipped

# Format, clippy, the contract, licences and bans.
lint: _buf _deny
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cd proto && {{ buf }} lint
    cargo deny --config .cargo/deny.toml check bans licenses sources

# The README's test command.
test:
    cargo test --workspace --locked

# Tensor operations as aarch64 runs them, on the portable path. Needs rustup, a compiler for that architecture and QEMU.
test-aarch64:
    rustup target add aarch64-unknown-linux-gnu
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu" \
        cargo test --locked -p kernels --lib --test ops --target aarch64-unknown-linux-gnu

# The same tests, each in a process of its own, with a summary.
nextest *args: _nextest
    cargo nextest run --workspace --locked {{ args }}

# Independent references: logits, unpacked blocks, tokenizers and chat templates of other implementations, broken files. HEARTH_ORACLE names their folder.
oracle: _needs-oracle
    cargo test --locked -p text --test oracle --test oracle_templates -- --nocapture
    cargo test --locked -p e2e --test dequant -- --nocapture
    cargo test --locked -p e2e --test oracle -- --nocapture

# Cold and warm bytes against the block layer's own counters, on a loop device. Needs root.
test-root:
    @test "$(id -u)" = 0 || { echo "test-root mounts a loop device and changes users: run it as root"; exit 1; }
    cargo test --locked -p e2e --test cold_bytes

# The HIP path without a GPU: in several thread orders, under the address sanitizer, with the layouts of AMD's tiles. Needs clang 19 or newer.
test-hip *orders:
    kernels/hip/emulate/test.sh {{ orders }}

# Whole models against the references on the HIP path without a GPU: those that `gpu` packs. All of them stay attached to a device whose memory does not hold the KV store of each.
oracle-hip: _needs-oracle
    rm -rf target/hip/oracle
    python3 tests/gpu/references.py "$HEARTH_ORACLE" target/hip/oracle {{ gpu_references_bytes }}
    HEARTH_ORACLE="$PWD/target/hip/oracle" kernels/hip/emulate/emulated.sh forward -p e2e --test oracle -- --nocapture default_device_agrees_with_keys_and_values_in_f16

# Everything that reads hostile bytes, under a coverage-guided fuzzer for SECONDS per target. Needs a C++ compiler.
fuzz seconds="20":
    tests/fuzz/run.sh {{ seconds }}

# Coverage of our own Rust by lines, children of tests included; `test` and `oracle` run in it once more. The HIP path is left out: it runs in builds of its own, in `test-hip` and `oracle-hip`. So is one test that takes minutes when its loops are counted; others cover the same lines. LLVM 22 reads what rustc 1.95 counts.
coverage: _llvm-cov _needs-oracle
    LLVM_COV={{ llvm_cov }} LLVM_PROFDATA={{ llvm_profdata }} cargo llvm-cov --workspace --locked --summary-only --ignore-filename-regex 'kernels/(src/)?hip/' --fail-under-lines 85 -- --skip company_chunks_blocks_and_threads_change_no_bit

# The kernels' machine code for every GPU target: dot products, matrix instructions, no spilled registers. Needs clang 19 and LLVM's tools.
check-images:
    kernels/hip/check-images.sh

# Every kernel on this machine's GPU, through the HIP library given or found: bytes and operations per second. Answers are checked first.
bench-gpu-kernels *library:
    cargo run --release --locked -p kernels --example bench-kernels -- {{ library }}

# Packs the GPU suite into a folder, for a machine with an NVIDIA GPU: run.sh in it runs the suite there and prints its tables.
gpu folder="target/gpu-suite":
    tests/gpu/pack.sh {{ folder }} {{ gpu_references_bytes }}

# Clients in other languages that know only reflection.
test-clients: _buf _venv
    cargo build --locked --bin hearth
    tests/clients/run.sh target/debug/hearth {{ python }} {{ buf }}

# What the demo model writes, judged by the grammar of its training text. `services/cli/models/train/train.py` made it.
demo-model:
    cd services/cli/models && sha256sum --check --quiet demo.gguf.sha256
    cd services/cli/models/train && PYTHONDONTWRITEBYTECODE=1 python3 -m unittest --quiet test_reader
    cargo build --locked --bin hearth
    PYTHONDONTWRITEBYTECODE=1 python3 services/cli/models/train/check.py target/debug/hearth services/cli/models/demo.gguf

# Plan build and attach on an 8B-shaped file, against their bars.
bench-start:
    cargo build --release --locked -p e2e --bins
    target/release/bench-start

# What running streams feel of a long prompt beside them: time between tokens, with and without, against its bar.
bench-fairness:
    cargo build --release --locked -p e2e --bin bench-fairness
    target/release/bench-fairness

# Each operation on the processor, beside what the machine can do at most; every answer is held against the reference first.
bench-kernels *args:
    cargo bench --locked -p kernels --bench ops -- {{ args }}

# Prefill, decode and eight streams beside llama.cpp on a 1B-shaped file of each kind, against their bars.
bench-peer *files: _peer
    cargo build --release --locked -p e2e --bins
    mkdir -p {{ tools }}/models
    target/release/bench-peer {{ tools }}/peer/bin/python tests/peer/peer.py {{ tools }}/models {{ files }}

# Three starts of a small model: cold, hot, warm.
demo *args:
    cargo run --release -- demo {{ args }}

_gpu-skipped:
    @echo "SKIPPED: nothing was run on a GPU. 'just gpu' packs a folder whose run.sh does that on a machine with an NVIDIA GPU, and prints its tables."

_needs-oracle:
    @test -n "${HEARTH_ORACLE:-}" || { echo "HEARTH_ORACLE must name the folder of references"; exit 1; }

_buf:
    @test -x {{ buf }} || npm install --silent --no-fund --no-audit --prefix {{ tools }} @bufbuild/buf@1.75.0

_venv:
    @test -x {{ python }} || python3 -m venv {{ tools }}/venv
    @{{ python }} -m pip install --quiet --disable-pip-version-check --requirement tests/clients/requirements.txt

# llama.cpp from its source, for this processor.
_peer:
    @test -e {{ tools }}/peer/{{ peer_version }} || { \
        python3 -m venv {{ tools }}/peer \
        && CMAKE_ARGS="{{ peer_flags }}" {{ tools }}/peer/bin/pip install --disable-pip-version-check --no-binary llama-cpp-python llama-cpp-python=={{ peer_version }} \
        && touch {{ tools }}/peer/{{ peer_version }}; }
    @echo "llama.cpp is built with {{ peer_flags }}"

_deny:
    @cargo deny --version >/dev/null 2>&1 || cargo install --locked --root {{ tools }} cargo-deny@0.20.2

_llvm-cov:
    @command -v {{ llvm_cov }} >/dev/null && command -v {{ llvm_profdata }} >/dev/null || { echo "coverage needs LLVM 22: llvm-cov-22 and llvm-profdata-22, or others named by LLVM_COV and LLVM_PROFDATA"; exit 1; }
    @cargo llvm-cov --version >/dev/null 2>&1 || cargo install --locked --root {{ tools }} cargo-llvm-cov@0.8.5

_nextest:
    @cargo nextest --version >/dev/null 2>&1 || cargo install --locked --root {{ tools }} cargo-nextest
