"""The draw of a story from the plots. The grammar is read in two directions: this one makes stories, `reader.py` recognises them."""

import functools
import re

from plots import BREAK, PLOTS, steps
from words import APART, SLOTS


@functools.cache
def parts(pattern):
    """A pattern as a list of literal texts and `(slot, form, article, capital)`."""
    found = []
    for text, capital, article, slot, form in re.findall(r"([^{}]+)|\{(\^)?(a:)?(\w+)(?:\.(\w+))?\}", pattern):
        found.append(text if text else (slot, form, bool(article), bool(capital)))
    return found


def worded(text, article, capital):
    """An entry's text as it stands in a sentence."""
    if article:
        sounds_open = text.startswith(tuple("aeiou")) and text != "unicorn" or text == "honest"
        text = f"{'an' if sounds_open else 'a'} {text}"
    return text[0].upper() + text[1:] if capital else text


class Story:
    """A drawn story: its `plot`, its `sentences`, with `BREAK` between paragraphs, and the `chosen` entry of every fixed slot that was met so far."""

    def __init__(self, random):
        self.random, self.chosen = random, {}
        self.plot = random.choice(list(PLOTS))
        self.sentences = [step if step is BREAK else self.fill(random.choice(step)) for step in steps(self.plot)]

    def fill(self, pattern):
        """One sentence of a pattern. Of a slot that is not fixed, no entry stands twice in it."""
        words, used = [], []
        for part in parts(pattern):
            if isinstance(part, str):
                words.append(part)
                continue
            slot, form, article, capital = part
            entry = self.fixed(slot) if SLOTS[slot].fixed else self.draw(slot, used)
            used.append(entry)
            words.append(worded(entry[form], article, capital))
        return "".join(words)

    def fixed(self, slot):
        if slot not in self.chosen:
            others = [self.chosen.get(one if slot == other else other) for one, other in APART if slot in (one, other)]
            self.chosen[slot] = self.draw(slot, others)
        return self.chosen[slot]

    def draw(self, slot, others):
        entries = SLOTS[slot].entries
        if slot == "lesson":
            entries = [entry for entry in entries if self.plot in entry["plots"].split()]
        entry = self.random.choice(entries)
        while entry in others or (slot == "corner" and entry == self.chosen.get("hide")):
            entry = self.random.choice(entries)
        return entry

    @property
    def text(self):
        return " ".join(self.sentences).replace(f" {BREAK} ", BREAK)
