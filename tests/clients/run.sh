#!/usr/bin/env bash
# Streams a completion with clients in other languages that know only reflection: Python's grpcio, and `buf curl`.
# usage: tests/clients/run.sh HEARTH PYTHON BUF, the three executables to use. Fails where one is missing.
set -euo pipefail
hearth=$1 python=$2 buf=$3
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
port=$((20000 + RANDOM % 20000))
up_pid=
cleanup() {
    if [ -n "$up_pid" ]; then kill "$up_pid" 2>/dev/null || true; wait "$up_pid" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap cleanup EXIT

mkdir "$work/models"
cp "$here/../../services/cli/models/demo.gguf" "$work/models/demo.gguf"
"$hearth" up --models "$work/models" --listen "127.0.0.1:$port" --loader-socket "$work/loader.sock" >"$work/up.log" 2>&1 &
up_pid=$!
for _ in $(seq 600); do
    grep -q grpcurl "$work/up.log" && break
    kill -0 "$up_pid" 2>/dev/null || { cat "$work/up.log"; exit 1; }
    sleep 0.1
done

"$python" "$here/python_client.py" "127.0.0.1:$port" demo

"$buf" curl --http2-prior-knowledge --reflect-protocol grpc-v1 --protocol grpc --list-services "http://127.0.0.1:$port" | tee "$work/services"
grep -qx hearth.inference.v1.InferenceService "$work/services"
"$buf" curl --http2-prior-knowledge --reflect-protocol grpc-v1 --protocol grpc \
    -d '{"model": "demo", "text": "Once upon a time", "stopping": {"maxTokens": 4, "ignoreEos": true}}' \
    "http://127.0.0.1:$port/hearth.inference.v1.InferenceService/Generate" | tee "$work/events"
grep -q '"finished"' "$work/events"
echo "clients in other languages: Python (grpcio) and buf curl streamed a completion"
