"""Copies references of logits, and a manifest of just those, while they fit: references.py ORACLE FOLDER BYTES_MAX.

Models come first, as each is an architecture; then quantised files, the usual ones before the others, the smallest of those first: the kernels' own tests have every tensor type. What was left
out is named.
"""

import json
import pathlib
import shutil
import sys

oracle, folder, bytes_max = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
manifest = json.loads((oracle / "manifest.open.json").read_text())
cases = [case for case in manifest["cases"] if case["kind"] == "logits"]
usual = ["quants/llama-Q4_K_M", "quants/llama-Q8_0", "quants/llama-Q4_0"]


def paths_of(case):
    return [oracle / case[key] for key in ("file", "expected", "expected_alt") if case.get(key)]


def bytes_of(case):
    return sum(path.stat().st_size for path in paths_of(case))


cases.sort(key=lambda case: (case["id"].startswith("quants/"), case["id"] not in usual, bytes_of(case)))
kept, total_bytes = [], 0
for case in cases:
    size_bytes = bytes_of(case)
    if total_bytes + size_bytes > bytes_max:
        print("left out:", case["id"])
        continue
    total_bytes += size_bytes
    kept.append(case)
    for path in paths_of(case):
        target = folder / path.relative_to(oracle)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
manifest["cases"], manifest["n_cases"] = kept, len(kept)
(folder / "manifest.open.json").write_text(json.dumps(manifest))
print(f"{len(kept)} references, {total_bytes / 1e6:.0f} MB")
