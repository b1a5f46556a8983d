"""The plots of the stories: steps of sentence patterns, patterns of words and slots.

In a pattern `{slot}` or `{slot.form}` stands for an entry, `{a:slot}` for one behind its article, `{^slot}` for one with a capital letter.
"""

BREAK = "\n\n"
"""Between two steps of a plot: a new paragraph begins."""

OPENING = [
    "Once upon a time, {a:mood} {kind} named {hero} lived {house.in} {where}.",
    "Once upon a time there was {a:mood} {kind} called {hero}, who lived {house.in} {where}.",
    "Once upon a time, {where}, {a:mood} {kind} named {hero} lived {house.in}.",
    "Long ago, {where}, there lived {a:mood} {kind} named {hero}, and {hero.his} home was {house.a}.",
    "{hero} was {a:mood} {kind} who lived {house.in} {where}.",
    "There was once {a:mood} {kind} named {hero}, whose home was {house.a} {where}.",
    "The {mood} {kind} was called {hero} and lived {house.in} {where}.",
    "{^where}, {house.in}, lived {a:mood} {kind} named {hero}.",
    "This is the story of {hero}, {a:mood} {kind} who lived {house.in} {where}.",
]

HABIT = [
    "Every {time} in {season}, {hero} {habit.past}, and when it was {weather} {hero.he} {pastime.past}.",
    "{hero} liked to {habit.bare}, and on {weather} {weekday}s {hero.he} {pastime.past}.",
    "Most of all, {hero} loved {habit.ing} on {a:weather} {time}, but {hero.he} also {pastime.past}.",
    "In {season} {hero} {habit.past}, and when it was {weather} {hero.he} {pastime.past}.",
    "{hero} was never bored, for there was always time for {habit.ing} {spot} or {pastime.ing}.",
    "When {hero} was not {habit.ing} {spot}, {hero.he} was {pastime.ing}.",
    "On {weekday}s {hero} {habit.past}, and on {weather} {weekday}s {hero.he} {pastime.past}.",
]

MEETING = [
    "Just then, {a:friendmood} {friendkind} named {friend} came {by}.",
    "{^a:friendmood} {friendkind} named {friend}, who was coming {by}, stopped to listen.",
    "Who should come {by} but {friend}, {a:friendmood} {friendkind}?",
    "At that moment {a:friendmood} {friendkind} came {by}, and {friend.his} name was {friend}.",
]

ASKING = [
    '"Why do you look so {sad}?" asked {friend}.',
    '"What is the matter?" asked {friend}, and {friend.he} sat down {spot}.',
    '"You look {sad}," said {friend}, "and it is such {a:weather} {time}."',
    '"Hello there," said {friend}, "may I ask why you are {sad}?"',
]

FRIENDS = [
    "From that day on, {hero} and {friend} were the best of friends.",
    "Since then {hero} and {friend} have met every {weekday}, and they never run out of things to say.",
    "After that, {hero} and {friend} were often seen {habit.ing} together.",
    "And from then on, whenever it was {weather}, {friend} came to visit {hero} {house.in} {where}.",
    "Now {hero.he} had a friend, and on {weather} days the two of them {habit.past} side by side.",
]

STILL_FRIENDS = [
    "And {hero} and {friend} stayed friends for as long as they lived {where}.",
    "To this day {hero} and {friend} meet every {weekday}, and they never run out of things to say.",
    "After that, {hero} and {friend} were often seen {habit.ing} together.",
    "And whenever it was {weather}, {friend} came to visit {hero} {house.in} {where}.",
    "On {weather} days the two of them {habit.past} side by side, and on {weather} days they {pastime.past}.",
]

ENDING = [
    "And {hero} never forgot that {lesson}.",
    "That is how {hero} learned that {lesson}.",
    'And when anybody asks, {hero} says, "Remember that {lesson}."',
    "That night, {house.in} {where}, {hero} fell asleep with a smile, for {hero.he} knew that {lesson}.",
    "So {hero} and {friend} both found out that {lesson}.",
]

LOST = [
    [
        "One {weather} {time}, {hero} could not find {hero.his} {thing}.",
        "But one {weather} {time}, {hero.his} {thing} was gone.",
        "Then, one {weather} {time} in {season}, {hero} noticed that {hero.his} {thing} was missing.",
    ],
    [
        "{hero.He} looked {corner} and {corner}, but it was not there.",
        "{hero} searched {corner}, and then {hero.he} searched {corner}, but there was nothing to be found.",
        "It was not {corner}, and it was not {corner} either.",
    ],
    [
        "In the end {hero.he} sat down {spot} and felt {sad}.",
        "{hero} sat down {spot} and began to cry.",
        "Tired and {sad}, {hero.he} sat down {spot}.",
    ],
    BREAK,
    MEETING,
    ASKING,
    [
        '"I have lost my {thing}," said {hero}, "and I have looked everywhere."',
        '"My {thing} is gone, and I shall never see it again," answered {hero}.',
        '"Somewhere I dropped my {thing}," said {hero} in a small voice.',
    ],
    [
        '"Two pairs of eyes see more than one," said {friend}, "so let us look together."',
        '"Then we shall look for it together," said {friend}, and {friend.he} put on {wear}.',
        '"A {thing} cannot walk away," said {friend}, "so it must be somewhere."',
    ],
    BREAK,
    [
        "They looked {corner}, and they asked {seller}, and they even went {way}.",
        "Together they went {way}, and {friend} looked {corner} while {hero} looked {corner}.",
        "So they went {way} and asked everyone they met.",
    ],
    [
        "At last {friend} looked {hide}, and there was the {thing}!",
        "And there, {hide}, lay the {thing}, as if it had never been away.",
        "It was {hero} who finally saw something {hide}: it was the {thing}!",
    ],
    [
        '"We found it!" cried {hero}, and {hero.he} {joy.past}.',
        "{hero} {joy.past}, and {friend} {joy.past} too.",
        '"I would never have found it without you," said {hero}, and {hero.he} {joy.past}.',
    ],
    [
        "To say thank you, {hero} gave {friend} {treat}.",
        "That {time} {hero} invited {friend} to {house.the} and gave {friend.him} {treat}.",
        "{hero} shared {snack} with {friend}, and they sat {spot} until {until}.",
    ],
]

SKILL = [
    [
        "More than anything, {hero} wanted to learn to {skill.bare}.",
        "{hero} had one great wish: {hero.he} wanted to {skill.bare} like the others.",
        "There was only one thing that {hero.he} could not do, and that was {skill.ing}.",
    ],
    [
        "{hero.He} tried it {spot}, and {hero.he} tried it {spot}, but it always went wrong.",
        "One {weather} {time} {hero.he} tried it all alone {spot}, but it ended with a bump.",
        "{hero.He} had tried it for {span}, but every time it ended in a muddle.",
    ],
    [
        '"I will never learn to {skill.bare}," sighed {hero}.',
        '"{^skill.ing} is not for me," said {hero}, and {hero.he} sat down {spot}.',
        '"Why is {skill.ing} so hard?" said {hero} to nobody at all.',
    ],
    BREAK,
    MEETING,
    [
        "Now {friend} was very good at {skill.ing}.",
        "As it happened, {friend} had been {skill.ing} for years.",
        "Everybody knew that nobody was better at {skill.ing} than {friend}.",
    ],
    [
        '"Shall I show you how it is done?" asked {friend}.',
        '"I could not do it at first either," said {friend}, "and it took me {span}."',
        '"Come back tomorrow {daytime}," said {friend}, "and we shall try it together."',
    ],
    [
        '"The secret is to {advice}," said {friend}.',
        '"You only have to {advice}," said {friend}, and {friend.he} gave {hero} {treat}.',
        '"When I learned it," said {friend}, "I was told to {advice}."',
    ],
    BREAK,
    [
        "So they practised {spot} every {time} for {span}.",
        "They met {spot} in {weather} weather and practised until {until}.",
        "For {span} {hero} practised with {friend}, first {spot} and then {spot}.",
    ],
    [
        "At first it was difficult, but each {time} it went a little better.",
        "Sometimes {hero.he} was {sad}, but {hero.he} did not give up.",
        "When it went wrong they laughed, and when it went well they shared {snack}.",
    ],
    [
        "And then, one {weather} {time}, {hero} could {skill.bare} all by {hero.himself}!",
        "One {weather} {time} in {season}, {hero} was suddenly {skill.ing} as if it were easy!",
        "It was on a {weekday} that {hero} managed to {skill.bare} for the very first time.",
    ],
    [
        '"Look at me!" cried {hero}, and {hero.he} {joy.past}.',
        "{friend} {joy.past}, and all the neighbours came {by} to see it.",
        '"I knew you could do it," said {friend}, and {friend.he} {joy.past}.',
    ],
]

STORM = [
    [
        "One night in {season}, {storm} came and broke {hero.his} {part}.",
        "Then {storm} came over the land and tore at {house.the} until the {part} was broken.",
        "But one {weather} {time}, {storm} came over the hills and ruined {hero.his} {part}.",
    ],
    [
        "Now the cold came in, and {hero} had to sit there in {wear}.",
        "In the morning there were pieces of it {corner} and {corner}.",
        "{hero} looked at what was left of it and felt {sad}.",
    ],
    [
        '"How shall I ever mend the {part} alone?" said {hero}.',
        '"It will take me {span} to mend that {part}," said {hero}, and {hero.he} sighed.',
        '"A home without a {part} is not much of a home," said {hero}.',
    ],
    BREAK,
    [
        "The noise woke {friend}, {a:friendmood} {friendkind} who lived nearby, and {friend.he} came {by} to help.",
        "{^a:friendmood} {friendkind} named {friend} heard of it and came {by} with {treat}.",
        "Before long {a:friendmood} {friendkind} came {by}, and {friend.his} name was {friend}.",
    ],
    [
        '"I have {tool} and nothing else to do today," said {friend}.',
        '"I brought {tool}," said {friend}, "so where do we begin?"',
        '"With {tool} and a song, anything can be mended," said {friend}.',
    ],
    [
        '"You are very kind," said {hero}, and {hero.he} {joy.past}.',
        '"Then let us begin at once," said {hero}.',
        '"I do not know how to thank you," said {hero}.',
    ],
    BREAK,
    [
        "First they {fix}, then they {fix}, and they sang while they worked.",
        "{hero} {fix} while {friend} {fix}.",
        "All {time} long they worked: they {fix}, and afterwards they {fix}.",
    ],
    [
        "When {until}, the {part} was better than it had ever been.",
        "They did not stop until the {part} looked as good as new.",
        "In the {daytime} the {part} was finished, and {seller} came {by} to admire it.",
    ],
    [
        "Then {hero} made {dish}, and they ate {spot}.",
        "To celebrate, {hero} cooked {dish} for the two of them.",
        "{hero} fetched {dish} from the kitchen, and nothing had ever tasted so good.",
    ],
    [
        "While they ate, {friend} told a story about {tale}.",
        "They stayed there until {until}, and {hero} told a story about {tale}.",
        "{friend} knew a story about {tale}, and {hero} knew one about {tale}.",
    ],
]

CAKE = [
    [
        "{hero.His} best friend was {a:friendmood} {friendkind} named {friend}, and on {weekday} it would be {friend.his} birthday.",
        "Next door lived {friend}, {a:friendmood} {friendkind} who would soon have a birthday.",
        "One {weather} {time} {hero} remembered that it was almost the birthday of {friend}, {a:friendmood} {friendkind}.",
    ],
    [
        '"I shall bake {a:cake} for {friend}," said {hero}.',
        "So {hero} decided to bake {a:cake} as a surprise.",
        '"{friend} has always wanted {a:cake}," said {hero}, "and I shall bake one."',
    ],
    [
        "But when {hero.he} looked in the cupboard, there was no {ingredient} left.",
        "But there was no {ingredient}, neither in the kitchen nor {corner}.",
        "Everything was there except the {ingredient}.",
    ],
    BREAK,
    [
        "So {hero} put on {wear} and went {way} to ask {seller}.",
        "{hero} went {way} in {weather} weather, all the way to {seller}.",
        "The only one who had some was {seller}, who lived far away, and {hero} went there {way}.",
    ],
    [
        '"You may have some {ingredient}," said {seller}, "if you {task.bare} for me."',
        '"First {task.bare} for me," said {seller}, "and then I will give you {ingredient}."',
        '"I will gladly give you {ingredient}," said {seller}, "but somebody must {task.bare}."',
    ],
    [
        "So {hero} {task.past} until {until}.",
        "{hero} was {sad} for a moment, but then {hero.he} {task.past} without a word.",
        "{hero} {task.past}, and {hero.he} even hummed a tune.",
    ],
    [
        "Then {hero.he} hurried home {way} with the {ingredient}.",
        "Soon {hero.he} was back {house.in}, and the {cake} was in the oven.",
        "That {time} the smell of {cake} came {by}.",
    ],
    BREAK,
    [
        "When {friend} saw the {cake}, {friend.he} {joy.past}.",
        "On the great day {hero} put the {cake} in front of {friend}, who {joy.past}.",
        "{friend} came {by} and could hardly believe {friend.his} eyes.",
    ],
    [
        '"Is all of this for me?" asked {friend}.',
        '"Nobody has ever made me {a:cake} before," said {friend}.',
        '"You did all of this for me?" said {friend}, and {friend.he} {joy.past}.',
    ],
    [
        '"Of course it is for you," said {hero}, "because you are my friend."',
        '"It was nothing," said {hero}, who did not say a word about {seller}.',
        '"Blow out the candles and make a wish," said {hero}.',
    ],
    [
        "They ate the {cake} {spot} and stayed until {until}.",
        "There was enough {cake} for everyone, even for {seller}, who came {by} with {treat}.",
        "Then they {pastime.past} until {until}.",
    ],
]

NIGHT = [
    [
        "One {nightly} night in {season}, {hero} woke up and heard {sound} {from}.",
        "But one {nightly} night there was {sound} {from}, and {hero} woke up.",
        "Late on a {weekday}, when {hero} was almost asleep, there was {sound} {from}.",
    ],
    [
        "{hero} pulled the blanket over {hero.his} head and counted to ten.",
        "{hero.He} lay very still, and there it was again.",
        "First {hero} thought that it was only the wind in the chimney.",
    ],
    [
        '"Who is there?" whispered {hero}, but nobody answered.',
        '"Is somebody there?" asked {hero} with a trembling voice.',
        '"I am not afraid," said {hero}, although {hero.he} was a little.',
    ],
    [
        "Then {hero.he} lit {light}, put on {wear} and went to look.",
        "With {light} in front of {hero.him}, {hero} went to see what it was.",
        "{hero.He} took {light} and opened the door.",
    ],
    BREAK,
    [
        "There, {spot}, sat {a:friendmood} {friendkind} with {look}.",
        "It was no monster at all, but {a:friendmood} {friendkind} with {look}.",
        "In front of {house.the} stood {a:friendmood} {friendkind} with {look}.",
    ],
    [
        '"My name is {friend}, and I have lost my way," said the {friendkind}.',
        '"I am {friend}, and I did not want to wake anybody," said the {friendkind}.',
        '"Please do not be angry," said the {friendkind}, "I am only {friend}, and I am cold."',
    ],
    [
        '"Come in and get warm," said {hero}.',
        '"You poor thing, come in at once," said {hero}, and {hero.he} fetched {wear}.',
        '"Nobody should be out in the dark alone," said {hero}.',
    ],
    BREAK,
    [
        "So {hero} made {dish}, and {friend} ate three helpings.",
        "There was plenty of {dish} for both of them, and soon {friend} felt better.",
        "{hero} warmed up some {dish}, and they sat close to the fire.",
    ],
    [
        "{friend} told a story about {tale}, and {hero} told one about {tale}.",
        "Outside it was cold, but {house.in} {friend} told a story about {tale}.",
        "They talked until {late}, and {friend} even sang a song about {tale}.",
    ],
    [
        "In the morning {hero} showed {friend} the way: {way} and then {way}.",
        "The next {time}, {hero} walked with {friend} {way}.",
        "When the sun came up, {friend} gave {hero} {treat} and promised to come back.",
    ],
]

WONDER = [
    [
        "{hero} had often heard of {wonder}, but {hero.he} had never been there.",
        "All {hero.his} life {hero} had dreamed of seeing {wonder}.",
        "In an old book {hero} had found a picture of {wonder}, and {hero.he} thought of it every {time}.",
    ],
    [
        "So one {weather} {time} {hero.he} packed {food} into {bag} and set out.",
        "One {weather} {weekday} in {season}, {hero} put {food} into {bag} and closed the door of {house.the}.",
        "At last {hero.he} put on {wear}, took {food} and {bag}, and set out.",
    ],
    [
        "{hero.He} went {way} and {way}.",
        "The road led {way}, and by noon {hero.he} was far from home.",
        "For {span} {hero} walked {way}, and {hero.he} slept {spot}.",
    ],
    [
        "Then {hero.he} came to {obstacle}, and there the road ended.",
        "But then there was {obstacle}, and {hero} did not know what to do.",
        "Nobody had told {hero.him} about {obstacle}.",
    ],
    BREAK,
    MEETING,
    [
        '"Are you on your way to {wonder}?" asked {friend}.',
        '"Nobody gets past {obstacle} alone," said {friend}.',
        '"Only I know the way to {wonder}," said {friend}, and {friend.he} sat down {spot}.',
    ],
    [
        '"I have {food}," said {hero}, "and half of it is yours if you help me."',
        '"Will you show me the way?" asked {hero}, and {hero.he} offered {friend} {food}.',
        '"Then come with me," said {hero}, "for I have {food} and it is enough for two."',
    ],
    [
        "They ate {spot}, and then {friend} led {hero} {way}.",
        "{friend} laughed, took {hero} by the arm and went {way}.",
        "So they went on together, {way} and {way}, until {until}.",
    ],
    BREAK,
    [
        '"Close your eyes," said {friend}, "and do not open them until I tell you."',
        '"Only a few more steps," said {friend}, "and mind the stones."',
        '"Can you hear it already?" whispered {friend}.',
    ],
    [
        "And there it was: {wonder}, {bright}.",
        "In front of them lay {wonder}, {bright}.",
        "When {hero} looked up, {hero.he} saw {wonder}, {bright}.",
    ],
    [
        "{hero} {joy.past}, and then {hero.he} was silent for a long time.",
        '"It was worth every step," said {hero}, and {hero.he} {joy.past}.',
        "They stayed {spot} until {until} and hardly said a word.",
    ],
]

QUARREL = [
    [
        "{hero} had a friend named {friend}, {a:friendmood} {friendkind}, and they did everything together.",
        "{hero.His} neighbour was {friend}, {a:friendmood} {friendkind}, and every {time} they {pastime.past} together.",
        "With {friend}, {a:friendmood} {friendkind} from across the road, {hero.he} shared everything.",
    ],
    [
        "But one {weather} {time} they found {a:thing} {hide}.",
        "Then, one {weather} {time} in {season}, they both saw {a:thing} {hide}.",
        "One {weekday} there was {a:thing} {hide}, and both of them wanted it.",
    ],
    [
        '"I saw the {thing} first," said {hero}.',
        '"That {thing} belongs to me," said {hero}, and {hero.he} grabbed it.',
        '"Finders keepers," said {hero}, and {hero.he} held the {thing} tight.',
    ],
    [
        '"No, it is mine!" shouted {friend}, who turned red.',
        '"You always want everything," said {friend}, and {friend.he} went home {way}.',
        '"If you keep it, we are not friends," said {friend}.',
    ],
    BREAK,
    [
        "For {span} they did not say a word to each other.",
        "{hero} took the {thing} home and put it {corner}, and {friend} did not come {by} any more.",
        "After that {friend} stayed at home, and {hero} sat alone {spot}.",
    ],
    [
        "{hero} tried {habit.ing}, but it was no fun alone.",
        "Without {friend}, even {pastime.ing} was dull, and {hero} felt {sad}.",
        "The {thing} was pretty, but it could not laugh, and {hero} felt {sad}.",
    ],
    [
        "So one {time} {hero.he} put on {wear} and went to see {friend} with {treat}.",
        "At last {hero} took the {thing} and {treat} and went {way} to find {friend}.",
        "On {weekday} {hero} could bear it no longer and knocked on the door of {friend}.",
    ],
    BREAK,
    [
        '"I am sorry," said {hero}, "for what use is {a:thing} without a friend?"',
        '"You may have the {thing}," said {hero}, "if only we can be friends again."',
        '"I was wrong about the {thing}," said {hero} in a small voice.',
    ],
    [
        '"I am sorry too," said {friend}, and {friend.he} {joy.past}.',
        '"I have missed you every {time}," said {friend}.',
        '"Let us share it," said {friend}, and {friend.he} fetched {treat}.',
    ],
    [
        "So they took turns: {hero} had the {thing} on {weekday}s, and {friend} had it on {weekday}s.",
        "They hung the {thing} {spot}, where both of them could see it.",
        "In the end they gave the {thing} to {seller}, who {joy.past}.",
    ],
]

PLOTS = {"lost": LOST, "skill": SKILL, "storm": STORM, "cake": CAKE, "night": NIGHT, "wonder": WONDER, "quarrel": QUARREL}


def steps(plot):
    """All steps of a story with this plot, in order."""
    friends = STILL_FRIENDS if plot in ("cake", "quarrel") else FRIENDS
    return [OPENING, HABIT, BREAK, *PLOTS[plot], BREAK, friends, ENDING]
