"""llama.cpp's side of `just bench-peer`: reads one request a line on stdin, writes one line of JSON.

    prefill N     seconds for one prompt of N tokens
    decode N      seconds for N tokens, one by one, after a prompt of 16
    streams S N   seconds for N tokens of each of S sequences, decoded together, after prompts of 16
"""

import ctypes
import json
import sys
import time

import llama_cpp

PROMPT = 16


def main():
    path, threads = sys.argv[1], int(sys.argv[2])
    llama_cpp.llama_log_set(SILENT, None)
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(
        path.encode(), llama_cpp.llama_model_default_params()
    )
    context = new_context(model, threads)
    say(
        version=llama_cpp.__version__,
        system=llama_cpp.llama_print_system_info().decode().strip(),
        threads=threads,
    )
    for line in sys.stdin:
        what, *numbers = line.split()
        say(seconds=RUNS[what](context, *map(int, numbers)))


SILENT = llama_cpp.llama_log_callback(lambda level, text, data: None)


def new_context(model, threads):
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = 8192
    params.n_batch = 512
    params.n_ubatch = 512
    params.n_seq_max = 16
    params.n_threads = threads
    params.n_threads_batch = threads
    return llama_cpp.llama_init_from_model(model, params)


def say(**fields):
    print(json.dumps(fields), flush=True)


def decode(context, rows):
    """One step. rows: (token, position, sequence, whether its logits are wanted)."""
    batch = llama_cpp.llama_batch_init(len(rows), 0, 1)
    batch.n_tokens = len(rows)
    for i, (token, position, sequence, wanted) in enumerate(rows):
        batch.token[i] = token
        batch.pos[i] = position
        batch.n_seq_id[i] = 1
        batch.seq_id[i][0] = sequence
        batch.logits[i] = wanted
    begun = time.perf_counter()
    assert llama_cpp.llama_decode(context, batch) == 0
    # Computing may go on until somebody looks at the logits.
    last = llama_cpp.llama_get_logits_ith(context, len(rows) - 1)
    assert ctypes.cast(last, ctypes.c_void_p).value
    seconds = time.perf_counter() - begun
    llama_cpp.llama_batch_free(batch)
    return seconds


def clear(context):
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), False)


def tokens(count, sequence=0):
    return [300 + (i * 31 + sequence * 7) % 1000 for i in range(count)]


def prefill(context, count):
    clear(context)
    rows = [(t, i, 0, i == count - 1) for i, t in enumerate(tokens(count))]
    return decode(context, rows)


def streams(context, n_streams, count):
    clear(context)
    rows = [
        (t, i, s, i == PROMPT - 1)
        for s in range(n_streams)
        for i, t in enumerate(tokens(PROMPT, s))
    ]
    decode(context, rows)
    return sum(
        decode(context, [(300 + s + step, PROMPT + step, s, True) for s in range(n_streams)])
        for step in range(count)
    )


def decode_one(context, count):
    return streams(context, 1, count)


RUNS = {"prefill": prefill, "decode": decode_one, "streams": streams}

if __name__ == "__main__":
    main()
