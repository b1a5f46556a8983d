"""Recognises stories: the grammar read backwards.

A `Reader` is given a story sentence by sentence. A sentence is well formed if it fits a pattern of a later step than the one before it, in the same plot, and if
everything that it says of the fixed slots (names, pronouns, kinds, homes, things) can be true together with what the sentences before it said.
"""

import functools
import re

from grammar import parts, worded
from plots import BREAK, PLOTS, steps
from words import APART, SLOTS


def sentences(text):
    """The sentences of a text. Speech is part of the sentence that it stands in, however many marks it holds."""
    found, start, spoken = [], 0, False
    for index, letter in enumerate(text):
        if letter == '"':
            spoken = not spoken
        behind = text[index + 1 : index + 2]
        ends = letter in ".!?" or (letter == '"' and text[index - 1 : index] in tuple(".!?"))
        follows = text[index + 1 :].lstrip()[:1]
        if ends and not spoken and behind in ("", " ", "\n") and not follows.islower():
            found.append(text[start : index + 1].strip())
            start = index + 1
    rest = text[start:].strip()
    return found + [rest] if rest else found


@functools.cache
def spellings(slot, form, article, capital):
    """Each text that can stand for the slot, with the indices of the entries that it can mean."""
    found = {}
    for index, entry in enumerate(SLOTS[slot].entries):
        found.setdefault(worded(entry[form], article, capital), set()).add(index)
    return found


@functools.cache
def expression(pattern):
    """The pattern as a regular expression with a group for every slot."""
    pieces = []
    for part in parts(pattern):
        if isinstance(part, str):
            pieces.append(re.escape(part))
        else:
            texts = sorted(spellings(*part), key=len, reverse=True)
            pieces.append("(" + "|".join(map(re.escape, texts)) + ")")
    return re.compile("".join(pieces))


class Reader:
    """What the sentences so far leave possible."""

    def __init__(self):
        self.places = {plot: -1 for plot in PLOTS}
        """For every plot that is still possible, the last step that was seen."""
        self.possible = {}
        """For every fixed slot that was mentioned, the indices of the entries that it can be."""

    def read(self, sentence):
        """Takes a sentence in and says whether it is well formed here. One that is not leaves no trace."""
        places, possible = {}, None
        for plot, last in self.places.items():
            for place, step in enumerate(steps(plot)):
                if place <= last or step is BREAK:
                    continue
                fitting = next(filter(None, (self.fit(pattern, sentence, plot) for pattern in step)), None)
                if fitting:
                    places[plot], possible = place, fitting
                    break
        if possible is None:
            return False
        self.places, self.possible = places, possible
        return True

    def fit(self, pattern, sentence, plot):
        """The possible entries after a sentence of this pattern, or None."""
        match = expression(pattern).fullmatch(sentence)
        if not match:
            return None
        possible = {**self.possible}
        slots = [part for part in parts(pattern) if not isinstance(part, str)]
        for part, text in zip(slots, match.groups()):
            slot = part[0]
            if SLOTS[slot].fixed:
                meant = spellings(*part)[text]
                possible[slot] = possible.get(slot, meant) & meant
        if "lesson" in possible:
            possible["lesson"] = {index for index in possible["lesson"] if plot in SLOTS["lesson"].entries[index]["plots"].split()}
        same = any(possible.get(one) == possible.get(other) and len(possible.get(one, ())) == 1 for one, other in APART)
        return possible if all(possible.values()) and not same else None
