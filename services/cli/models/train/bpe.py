"""A byte-level byte pair encoding, learnt and applied as GPT-2 does it; the text is ASCII."""

import collections
import re

WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")
"""GPT-2's words where all text is ASCII: nothing is merged across them."""


def byte_symbols():
    """GPT-2's printable stand-in for each byte: itself where it is printable, else the next letter from U+0100 on."""
    printable = [*range(33, 127), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) if byte in printable else chr(0x100 + others.index(byte)) for byte in range(256)}


SYMBOLS = byte_symbols()


class Vocabulary:
    """`tokens`: text of every id, bytes first, then merges in order, then the special ones. `merges`: pairs of token texts."""

    def __init__(self, texts, specials, size):
        splitter = re.compile("|".join(map(re.escape, specials)))
        counts = collections.Counter(word for text in texts for piece in splitter.split(text) for word in WORDS.findall(piece))
        words = [([SYMBOLS[byte] for byte in word.encode()], count) for word, count in sorted(counts.items())]
        self.tokens, self.merges = list(SYMBOLS.values()), []
        while len(self.tokens) < size - len(specials):
            pairs = collections.Counter()
            for word, count in words:
                for pair in zip(word, word[1:]):
                    pairs[pair] += count
            # Of equally frequent pairs the first in alphabetical order, so that the same text always gives the same vocabulary.
            best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
            if best is None:
                break
            self.merges.append(best)
            if "".join(best) not in self.tokens:
                self.tokens.append("".join(best))
            for word, _ in words:
                merge(word, best)
        self.specials = {special: len(self.tokens) + index for index, special in enumerate(specials)}
        self.tokens += specials
        self.ids = {token: index for index, token in enumerate(self.tokens)}
        self.ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self.known = {}
        self.splitter = re.compile("(" + splitter.pattern + ")")

    def encode(self, text):
        """The ids of a text in which special tokens are spelled out."""
        found = []
        for piece in self.splitter.split(text):
            if piece in self.specials:
                found.append(self.specials[piece])
                continue
            for word in WORDS.findall(piece):
                if word not in self.known:
                    self.known[word] = self.encode_word(word)
                found += self.known[word]
        return found

    def encode_word(self, word):
        symbols = [SYMBOLS[byte] for byte in word.encode()]
        while True:
            pairs = [pair for pair in zip(symbols, symbols[1:]) if pair in self.ranks]
            if not pairs:
                return [self.ids[symbol] for symbol in symbols]
            merge(symbols, min(pairs, key=self.ranks.get))

    def decode(self, ids):
        """The text of these ids."""
        bytes_of = {symbol: byte for byte, symbol in SYMBOLS.items()}
        texts = (self.tokens[id] for id in ids)
        return b"".join(text.encode() if text in self.specials else bytes(bytes_of[symbol] for symbol in text) for text in texts).decode(errors="replace")


def merge(word, pair):
    """Merges every occurrence of the pair in a list of symbols, from the left."""
    index = 0
    while index + 1 < len(word):
        if (word[index], word[index + 1]) == pair:
            word[index : index + 2] = ["".join(pair)]
        index += 1
