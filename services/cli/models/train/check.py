"""Judges what the demo model writes when Hearth runs it greedily, by the grammar that its training text came from.

    python3 check.py HEARTH ../demo.gguf

Cuts 200 new stories off within their first sentence and lets the model end them. Fails if the grammar knows less than 90 % of the sentences that the model wrote
wholly by itself, or if of the first such sentences, one per story, fewer than 100 are distinct and not in the training text. Needs nothing but Python.
"""

import argparse
import json
import multiprocessing
import pathlib
import random
import signal
import subprocess
import tempfile
import time

import chat
from grammar import Story
from reader import Reader, sentences

N_STORIES, N_TOKENS = 200, 400
PARSED_SHARE_MIN, N_NEW_MIN = 0.9, 100
READY_SECONDS = 60


class Service:
    """`hearth up` on private sockets."""

    def __init__(self, hearth, model):
        self.hearth, self.folder = hearth, tempfile.TemporaryDirectory(prefix="hearth-")
        folder = pathlib.Path(self.folder.name)
        (folder / "models").mkdir()
        (folder / "models" / "demo.gguf").write_bytes(model.read_bytes())
        self.address = f"unix:{folder}/inference.sock"
        self.log = folder / "log"
        flags = ["--models", folder / "models", "--listen", self.address, "--loader-socket", folder / "loader.sock"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([hearth, "up", *flags], stdout=log, stderr=log)

    def __enter__(self):
        deadline = time.monotonic() + READY_SECONDS
        while b"grpcurl" not in self.log.read_bytes():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"hearth up did not get ready:\n{self.log.read_text()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self.folder.cleanup()

    def complete(self, prompt):
        """The greedy completion, and whether it ended by itself."""
        command = [self.hearth, "generate", "--server", self.address, "-m", "demo", "--temperature", "0", "-n", str(N_TOKENS), "--json", prompt]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        events = [json.loads(line) for line in output.splitlines()]
        text = "".join(event["text"] for event in events if event["event"] == "delta")
        return text, events[-1]["finish_reason"] == "stop"


def openings():
    """Beginnings of new stories, all different, each cut off within the first sentence."""
    drawn, found = random.Random("openings"), set()
    while len(found) < N_STORIES:
        story = Story(drawn).text
        found.add(story[: story.index(" ", drawn.randrange(20, 40))])
    return sorted(found)


def known_sentences(seed):
    """Hashes of the sentences of one document of the training text."""
    document = chat.document(seed)
    for special in chat.SPECIALS:
        document = document.replace(special, "\n\n")
    return {hash(sentence) for sentence in sentences(document)}


def training_sentences():
    # Hashes of texts are the same in forked processes alone.
    with multiprocessing.get_context("fork").Pool() as pool:
        return set().union(*pool.imap_unordered(known_sentences, range(chat.N_DOCUMENTS), chunksize=1000))


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("hearth", type=pathlib.Path)
    flags.add_argument("model", type=pathlib.Path)
    options = flags.parse_args()
    first, n_sentences, n_parsed, n_ended, odd = [], 0, 0, 0, []
    with Service(options.hearth, options.model) as service:
        for opening in openings():
            written, ended = service.complete(opening)
            n_ended += ended
            reader, own, place = Reader(), [], 0
            for sentence in sentences(opening + written):
                place = (opening + written).index(sentence, place)
                parsed = reader.read(sentence)
                # The sentence that the opening began is not the model's own.
                if place >= len(opening):
                    own.append((sentence, parsed))
            n_sentences, n_parsed = n_sentences + len(own), n_parsed + sum(parsed for _, parsed in own)
            odd += [sentence for sentence, parsed in own if not parsed]
            first += own[:1]
    known = training_sentences()
    new = {sentence for sentence, _ in first if hash(sentence) not in known}
    first_parsed = sum(parsed for _, parsed in first)
    print(f"{len(first)} stories, {n_ended} of which end by themselves; {n_parsed} of their {n_sentences} sentences are well formed")
    print(f"first sentences: {first_parsed} of {len(first)} well formed; {len(new)} are distinct and not among the {len(known)} of the training text")
    for sentence in odd[:10]:
        print(f"  not well formed: {sentence}")
    enough = len(first) == N_STORIES and min(first_parsed / len(first), n_parsed / n_sentences) >= PARSED_SHARE_MIN and len(new) >= N_NEW_MIN
    if not enough:
        raise SystemExit(f"wanted: {PARSED_SHARE_MIN:.0%} of both well formed, {N_NEW_MIN} new")


if __name__ == "__main__":
    main()
