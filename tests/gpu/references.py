"""Copies references of logits, and a manifest of just those, while they fit: references.py ORACLE FOLDER BYTES_MAX.

Quantised files come first, as each is a tensor type, then the models that a GPU takes whole; what was left out is named.
"""

import json
import pathlib
import shutil
import sys

oracle, folder, bytes_max = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
manifest = json.loads((oracle / "manifest.open.json").read_text())
cases = [case for case in manifest["cases"] if case["kind"] == "logits"]
first = ["models/llama", "models/qwen2", "models/qwen3"]
cases.sort(key=lambda case: (not case["id"].startswith("quants/"), case["id"] not in first))
kept, total_bytes = [], 0
for case in cases:
    paths = [oracle / case[key] for key in ("file", "expected", "expected_alt") if case.get(key)]
    size_bytes = sum(path.stat().st_size for path in paths)
    if total_bytes + size_bytes > bytes_max:
        print("left out:", case["id"])
        continue
    total_bytes += size_bytes
    kept.append(case)
    for path in paths:
        target = folder / path.relative_to(oracle)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
manifest["cases"], manifest["n_cases"] = kept, len(kept)
(folder / "manifest.open.json").write_text(json.dumps(manifest))
print(f"{len(kept)} references, {total_bytes / 1e6:.0f} MB")
