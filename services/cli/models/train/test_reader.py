"""Shows that the reader can tell a story from a damaged one: `python3 -m unittest test_reader`."""

import random
import unittest

from grammar import Story
from plots import BREAK
from reader import Reader, sentences
from words import SLOTS

N_STORIES = 200


def drop(drawn, words):
    del words[drawn.randrange(len(words))]


def double(drawn, words):
    place = drawn.randrange(len(words))
    words.insert(place, words[place])


def swap(drawn, words):
    place = drawn.randrange(len(words) - 1)
    words[place], words[place + 1] = words[place + 1], words[place]


def misspell(drawn, words):
    place = drawn.randrange(len(words))
    words[place] = words[place] + "e"


class TestReader(unittest.TestCase):
    def stories(self):
        for seed in range(N_STORIES):
            drawn = random.Random(f"reader {seed}")
            story = Story(drawn)
            yield drawn, story, [sentence for sentence in story.sentences if sentence is not BREAK]

    def rejected(self, change):
        """Of how many sentences the reader says no to the changed one where it says yes to the right one. `change` gives None for a sentence that it cannot change."""
        n_changed, n_rejected = 0, 0
        for drawn, story, right in self.stories():
            for index, sentence in enumerate(right):
                changed = change(drawn, story, index, sentence)
                if changed is None or changed == sentence:
                    continue
                reader = Reader()
                for before in right[:index]:
                    self.assertTrue(reader.read(before), before)
                n_changed += 1
                n_rejected += not reader.read(changed)
        self.assertGreater(n_changed, N_STORIES / 2)
        return n_rejected / n_changed

    def test_every_drawn_story_is_well_formed(self):
        for _, story, right in self.stories():
            self.assertEqual(sentences(story.text), right)
            reader = Reader()
            for sentence in right:
                self.assertTrue(reader.read(sentence), sentence)

    def test_damaged_words_are_seen(self):
        for damage in [drop, double, swap, misspell]:

            def change(drawn, story, index, sentence, damage=damage):
                words = sentence.split(" ")
                damage(drawn, words)
                return " ".join(words)

            with self.subTest(damage.__name__):
                self.assertGreater(self.rejected(change), 0.99)

    def test_wrong_names_are_seen(self):
        def change(_drawn, story, index, sentence):
            third = next(entry for entry in SLOTS["hero"].entries if entry not in (story.chosen["hero"], story.chosen["friend"]))
            return sentence.replace(story.chosen["hero"]["name"], third["name"]) if index > 0 else None

        self.assertEqual(self.rejected(change), 1)

    def test_wrong_pronouns_are_seen(self):
        def change(_drawn, story, index, sentence):
            he = story.chosen["hero"]["he"]
            # Only where nobody else was mentioned yet.
            return sentence.replace(f" {he} ", " she " if he == "he" else " he ") if index == 1 else None

        self.assertEqual(self.rejected(change), 1)

    def test_sentences_of_another_place_are_seen(self):
        strangers = [right for _, _, right in self.stories()]
        self.assertEqual(self.rejected(lambda drawn, story, index, sentence: drawn.choice(strangers)[0] if index else None), 1)


if __name__ == "__main__":
    unittest.main()
