"""Conversations: somebody asks for stories, and asks about them."""

import random

from grammar import Story

N_DOCUMENTS = 200_000
"""Documents of the training text, numbered from 0."""

BEGIN, END, USER, ASSISTANT, SYSTEM = SPECIALS = ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]

TEMPLATE = (
    "{{- bos_token }}{% for message in messages %}{{- '<|' + message.role + '|>' + message.content | trim + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{- '<|assistant|>' }}{% endif %}"
)
"""How the model's file says that a conversation is written (Jinja)."""

BEGGING = ["tell me", "please tell me", "can you tell me", "could you tell me", "I would like to hear", "I want", "write", "write me", "make up", "give me", ""]
NOUNS = ["a story", "a short story", "a little story", "a bedtime story", "a tale", "a fairy tale", "a nice story"]
MORE = ["another one", "one more", "tell me another story", "another story please", "again", "more", "and now another one", "a different one"]
ABOUT = {
    "lost": ["a lost {thing}", "somebody who loses {a:thing}", "{a:thing}"],
    "skill": ["learning to {skill.bare}", "{skill.ing}", "somebody who wants to {skill.bare}"],
    "storm": ["{storm}", "a broken {part}", "a storm"],
    "cake": ["a birthday", "{a:cake}", "baking {a:cake}"],
    "night": ["{sound} in the night", "a noise at night", "the night"],
    "wonder": ["{wonder}", "a journey to {wonder}", "a long journey"],
    "quarrel": ["a quarrel", "two friends who quarrel", "sharing", "a quarrel about {a:thing}"],
}
HEROES = [
    "{a:kind}", "{a:kind}", "{a:kind}", "{a:kind} named {hero}", "{a:kind} called {hero}", "{hero}", "{hero} the {kind}", "{a:mood} {kind}",
    "{a:mood} {kind} named {hero}", "{a:kind} and {a:friendkind}", "{hero} and {friend}", "{a:kind} who lives {where}",
]  # fmt: skip

SMALL_TALK = [
    (
        ["hello", "hi", "hi there", "hello there", "good morning", "good evening", "hey", "how are you?", "good day"],
        ["Hello! Would you like to hear a story?", "Good day! Shall I tell you a story?", "Hello there! I know a story or two. Shall I begin?"],
    ),
    (
        ["who are you?", "what are you?", "what is your name?", "what can you do?", "are you a robot?", "help", "what do you know?"],
        [
            "I am a very small storyteller. Name an animal, and I will tell you a story about it.",
            "I am the storyteller of this hearth. I know no facts, but I know stories. Shall I tell you one?",
        ],
    ),
    (
        ["thank you", "thanks", "thank you very much", "that was nice", "I liked that", "nice", "great story", "wonderful", "cool"],
        ["You are welcome! Would you like another one?", "I am glad that you liked it. Say the word, and I will tell you another one."],
    ),
    (
        [
            "what is the capital of France?", "what is two plus two?", "write a program in Python", "what is the weather today?", "who won the match?",
            "explain gravity", "translate this into German", "what time is it?", "how do I cook rice?", "what is a transformer?", "solve this equation",
            "who is the president?", "how old is the universe?", "can you write code?", "what should I eat?", "why is the sky blue?", "do you like music?",
        ],
        ["That I do not know. I only know stories. Shall I tell you one?", "I am afraid I only know stories. Would you like to hear one?"],
    ),
    (
        ["bye", "goodbye", "good night", "see you", "no", "no thank you", "stop", "that is enough"],
        ["Good night, and sweet dreams!", "Goodbye! Come back when you want to hear a story."],
    ),
]  # fmt: skip
YES = ["yes", "yes please", "please do", "sure", "ok", "go on", "yes, tell me one", "of course", "please"]

QUESTIONS = [
    (["who is {friend}?", "who was {friend}?", "tell me more about {friend}"], ["{friend} is the {friendmood} {friendkind} in the story."]),
    (["where did {hero} live?", "where does {hero} live?", "where was that?"], ["{hero} lived {house.in} {where}."]),
    (["what was the {kind} called?", "what is the name of the {kind}?"], ["The {kind} was called {hero}."]),
    (["who was {hero}?", "who is {hero}?", "what kind of creature is {hero}?"], ["{hero} was {a:mood} {kind}."]),
    (["what did {hero} learn?", "what is the moral of the story?", "and what do we learn from that?"], ["{hero} learned that {lesson}."]),
    (["what did {hero} like?", "what did {hero} like to do?"], ["{hero} liked to {habit.bare}."]),
]


class Conversation:
    """A drawn conversation: the turns as `(role, text)`."""

    def __init__(self, drawn):
        self.random, self.turns = drawn, []
        if drawn.random() < 0.05:
            self.turns.append(("system", drawn.choice(["You are a storyteller.", "You are a helpful assistant.", "You tell stories to children."])))
        for _ in range(drawn.choice([0, 0, 1, 1, 2])):
            self.small_talk()
        for index in range(drawn.choice([1, 1, 2])):
            story = self.story(again=index > 0)
            for _ in range(drawn.choice([0, 0, 1, 2])):
                self.question(story)
            if drawn.random() < 0.2:
                self.small_talk()

    def say(self, request, answer):
        """A turn of each. People write as they like: without capitals, without a full stop."""
        if self.random.random() < 0.4:
            request = request[0].upper() + request[1:]
        if request[-1] not in "?!" and self.random.random() < 0.3:
            request += self.random.choice([".", ".", "!"])
        elif request[-1] == "?" and self.random.random() < 0.2:
            request = request[:-1]
        self.turns += [("user", request), ("assistant", answer)]

    def small_talk(self):
        requests, answers = self.random.choice(SMALL_TALK)
        self.say(self.random.choice(requests), self.random.choice(answers))

    def story(self, again):
        story = Story(self.random)
        kind = self.random.random()
        about = self.random.choice(HEROES if kind < 0.6 else ABOUT[story.plot])
        if kind > 0.9:
            about = f"{self.random.choice(HEROES)} and {about}"
        request = f"{self.random.choice(BEGGING)} {self.random.choice(NOUNS)} about {about}".strip()
        if self.random.random() < 0.15:
            request = about
        elif self.random.random() < 0.15:
            request = f"{self.random.choice(BEGGING)} {self.random.choice(NOUNS)}".strip()
        elif again and self.random.random() < 0.5:
            request = self.random.choice(MORE) + self.random.choice(["", f" about {about}"])
        elif self.turns and self.turns[-1][1].endswith("?") and self.random.random() < 0.4:
            request = self.random.choice(YES)
        if self.random.random() < 0.2:
            request += " please"
        self.say(story.fill(request), story.text)
        return story

    def question(self, story):
        requests, answers = self.random.choice(QUESTIONS)
        self.say(story.fill(self.random.choice(requests)), story.fill(self.random.choice(answers)))

    @property
    def text(self):
        return BEGIN + "".join(f"<|{role}|>{text}{END}" for role, text in self.turns)


def document(seed):
    """Document number `seed` of the training text: a bare story or a conversation."""
    drawn = random.Random(seed)
    if drawn.random() < 0.5:
        return BEGIN + Story(drawn).text + END
    return Conversation(drawn).text
