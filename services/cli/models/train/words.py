"""The words of the stories: one slot per kind of word, one line per entry, forms of an entry divided by bars.

A slot with FIXED entries keeps the one that was drawn for the whole story; the others are drawn anew wherever they stand.
"""

HE = "he|He|him|his|His|himself"
SHE = "she|She|her|her|Her|herself"


class Slot:
    """Entries that can stand for each other. `entries[i]` maps the name of a form to its text; the form `""` is the first one."""

    def __init__(self, text, forms="", fixed=False):
        names = forms.split("|")
        self.fixed = fixed
        self.entries = []
        for line in text.strip().splitlines():
            for entry in line.split(" / "):
                texts = entry.strip().split("|")
                assert len(texts) == len(names), entry
                self.entries.append({"": texts[0], **dict(zip(names, texts))})


def _people(he, she):
    lines = [f"{name}|{HE}" for name in he.split()] + [f"{name}|{SHE}" for name in she.split()]
    return Slot("\n".join(lines), "name|he|He|him|his|His|himself", fixed=True)


PEOPLE = _people(
    "Pip Otto Finn Milo Bram Toby Jasper Rufus Hugo Oscar Arlo Ned Basil Felix Monty Gus Theo Barnaby Linus Alfie Bertie Digby "
    "Edgar Fergus Hector Ivo Jonah Kit Leo Max Noah Percy Quill Rowan Sam Tom Wilbur Ziggy Casper Dexter",
    "Hazel Luna Willow Ivy Clara Poppy Daisy Nora Ruby Tilly Maple Juniper Bella Coco Dora Elsie Flora Greta Hattie Iris Josie "
    "Kira Lily Mabel Nell Olive Pearl Rosie Sadie Tansy Una Violet Winnie Zelda Ada Betty Cleo Effie Fern Molly",
)

KINDS = """
fox / owl / hedgehog / rabbit / mouse / bear / badger / squirrel / otter / frog / duck / swan / deer / mole / beaver / sparrow / robin / crow
cat / kitten / dog / puppy / goat / lamb / pony / donkey / pig / hen / goose / turtle / snail / bee / ant / beetle / butterfly / bird
elephant / lion / tiger / monkey / giraffe / zebra / penguin / seal / wolf / panda / parrot / toad / bat / hamster / camel / lizard
dragon / robot / giant / wizard / knight / unicorn / troll / gnome / pirate / ghost
"""

MOODS = """
small / little / young / brave / shy / clever / curious / cheerful / quiet / gentle / merry / kind / lonely / sleepy / busy / proud
tiny / old / patient / stubborn / dreamy / lively / honest / polite
"""

HABITS = """
swept the doorstep|sweep the doorstep|sweeping the doorstep
watered the roses|water the roses|watering the roses
counted the clouds|count the clouds|counting the clouds
hummed an old song|hum an old song|humming an old song
polished the brass bell|polish the brass bell|polishing the brass bell
wrote letters to the moon|write letters to the moon|writing letters to the moon
drank a cup of mint tea|drink a cup of mint tea|drinking a cup of mint tea
picked blackberries|pick blackberries|picking blackberries
painted pebbles|paint pebbles|painting pebbles
listened to the rain|listen to the rain|listening to the rain
climbed the nearest hill|climb the nearest hill|climbing the nearest hill
read books about pirates|read books about pirates|reading books about pirates
baked a loaf of bread|bake a loaf of bread|baking a loaf of bread
danced in the kitchen|dance in the kitchen|dancing in the kitchen
looked for clovers|look for clovers|looking for clovers
watched the boats go by|watch the boats go by|watching the boats go by
built towers of stones|build towers of stones|building towers of stones
planted a row of beans|plant a row of beans|planting a row of beans
mended old socks|mend old socks|mending old socks
collected shiny buttons|collect shiny buttons|collecting shiny buttons
chased falling leaves|chase falling leaves|chasing falling leaves
made daisy chains|make daisy chains|making daisy chains
drew maps of the garden|draw maps of the garden|drawing maps of the garden
told riddles to the neighbours|tell riddles to the neighbours|telling riddles to the neighbours
rolled down the grassy bank|roll down the grassy bank|rolling down the grassy bank
waved to the passing trains|wave to the passing trains|waving to the passing trains
stirred a big pot of soup|stir a big pot of soup|stirring a big pot of soup
played hide and seek|play hide and seek|playing hide and seek
"""

HOUSES = """
in a hollow tree|a hollow tree|the hollow tree
in a tiny cottage|a tiny cottage|the tiny cottage
in a snug burrow|a snug burrow|the snug burrow
in a crooked house|a crooked house|the crooked house
in a little red barn|a little red barn|the little red barn
in an old windmill|an old windmill|the old windmill
in a wooden hut|a wooden hut|the wooden hut
in a cosy cave|a cosy cave|the cosy cave
in a tall tower|a tall tower|the tall tower
in a round house|a round house|the round house
in a green caravan|a green caravan|the green caravan
in a stone cabin|a stone cabin|the stone cabin
in a house with a blue door|a house with a blue door|the house with the blue door
in a boat with a patched sail|a boat with a patched sail|the boat with the patched sail
"""

WHERE = """
at the edge of the forest / beside a quiet river / on a windy hill / near the sea / behind the old mill / by the lily pond
in the middle of a meadow / below the snowy mountains / at the end of a long lane / beyond the cornfields / under the tall oaks
not far from the village / on the shore of a lake / at the foot of a green hill / between two orchards / close to the old bridge
"""

THINGS = """
red scarf / silver key / brass bell / favourite button / blue kite / wooden flute / little lantern / lucky coin / woolly hat
picture book / golden ring / music box / paper boat / spyglass / yellow teapot / umbrella / tin drum / old compass / ball of yarn
glass marble / striped mitten / wooden spoon / feather pen
"""

HIDES = """
under a pile of leaves / behind the flowerpots / in an empty bucket / in the pocket of an old coat / between two mossy stones
on top of the cupboard / in an empty nest / beneath the apple tree / inside a rubber boot / among the tall reeds
under the kitchen table / in the wheelbarrow / behind the garden gate / in the bread basket / under the stairs / inside a hollow log
"""

SKILLS = """
swim|swimming / whistle|whistling / play the fiddle|playing the fiddle / fly a kite|flying a kite / bake bread|baking bread
ride a bicycle|riding a bicycle / dance the polka|dancing the polka / tell jokes|telling jokes / juggle apples|juggling apples
climb trees|climbing trees / paint pictures|painting pictures / sing in tune|singing in tune / read the stars|reading the stars
sail a boat|sailing a boat / skip stones|skipping stones / walk on stilts|walking on stilts / do magic tricks|doing magic tricks
knit socks|knitting socks / play chess|playing chess / skate on the ice|skating on the ice
"""

JOYS = """
danced for joy|dance for joy / jumped up and down|jump up and down / laughed out loud|laugh out loud
turned three somersaults|turn three somersaults / clapped and cheered|clap and cheer / smiled from ear to ear|smile from ear to ear
spun around in circles|spin around in circles / sang a happy song|sing a happy song
hugged everyone in sight|hug everyone in sight / blushed with happiness|blush with happiness
"""

SNACKS = """
a jar of honey / a slice of plum cake / a basket of pears / a bag of roasted chestnuts / a bottle of apple juice / a loaf of fresh bread
a pot of strawberry jam / a handful of cherries / a plate of pancakes
"""

TREATS = SNACKS + """
a warm pair of mittens / a bunch of wild flowers / a poem on blue paper / a painted egg / a walnut shell with a sail
"""

DISHES = """
pumpkin soup / hot cocoa / mushroom stew / potato pancakes / buttered toast / barley porridge / apple dumplings / onion pie / carrot soup / oat biscuits
"""

CAKES = """
honey cake / plum pie / carrot cake / blackberry tart / apple pie / lemon cake / chestnut pudding / cherry tart / ginger cake / walnut loaf
"""

TASKS = """
sweep my yard|swept the yard / stack the firewood|stacked the firewood / carry these sacks|carried the sacks / polish my lamps|polished the lamps
wash the windows|washed the windows / rake the leaves|raked the leaves / pick the last pears|picked the last pears / wind all my clocks|wound all the clocks
paint the fence|painted the fence / fetch water from the well|fetched water from the well
"""

LESSONS = """
even a small kindness goes a long way|lost storm night cake
two can do what one cannot|lost storm wonder skill
it is brave to ask for help|lost skill wonder
patience is a kind of magic|skill cake
good things take a little time|skill storm cake
a shared cake tastes twice as good|cake
the best presents are the ones that you make yourself|cake
every stranger could be a friend|night lost wonder
it is fine to be afraid|night skill
what sounds like a monster is often only somebody cold|night
it is never too late to say sorry|quarrel
nothing is worth more than a friend|quarrel lost
things are for sharing|quarrel
every storm passes in the end|storm
a roof is good, but a neighbour is better|storm
the road is shorter when two walk it|wonder
some things must be seen to be believed|wonder
nobody is born knowing everything|skill
"""

WONDERS = """
the sea / the great waterfall / the northern lights / the city of lanterns / the oldest tree in the world / the valley of bells
the frozen lake / the field of sunflowers / the lighthouse on the cliff / the garden of the queen / the end of the rainbow / the singing caves
"""

SLOTS = {
    "hero": PEOPLE,
    "friend": PEOPLE,
    "kind": Slot(KINDS, fixed=True),
    "friendkind": Slot(KINDS, fixed=True),
    "mood": Slot(MOODS, fixed=True),
    "friendmood": Slot(MOODS, fixed=True),
    "house": Slot(HOUSES, "in|a|the", fixed=True),
    "where": Slot(WHERE, fixed=True),
    "habit": Slot(HABITS, "past|bare|ing", fixed=True),
    "pastime": Slot(HABITS, "past|bare|ing", fixed=True),
    "thing": Slot(THINGS, fixed=True),
    "hide": Slot(HIDES, fixed=True),
    "corner": Slot(HIDES),
    "skill": Slot(SKILLS, "bare|ing", fixed=True),
    "joy": Slot(JOYS, "past|bare"),
    "treat": Slot(TREATS),
    "snack": Slot(SNACKS),
    "dish": Slot(DISHES, fixed=True),
    "cake": Slot(CAKES, fixed=True),
    "task": Slot(TASKS, "bare|past", fixed=True),
    "lesson": Slot(LESSONS, "lesson|plots", fixed=True),
    "wonder": Slot(WONDERS, fixed=True),
    "weather": Slot("sunny / misty / rainy / frosty / windy / warm / grey / bright / cloudy / chilly / fine"),
    "time": Slot("morning / afternoon / evening / day"),
    "daytime": Slot("morning / afternoon / evening"),
    "nightly": Slot("dark / stormy / starry / moonless / still / cold / foggy"),
    "late": Slot("the fire had burned low / they both yawned / the candle went out / the clock struck two / it was almost light"),
    "season": Slot("spring / summer / autumn / winter"),
    "sad": Slot("sad / gloomy / unhappy / worried / down in the mouth / miserable"),
    "spot": Slot(
        "on a mossy log / by the gate / under an apple tree / on the bottom step / beside the well / on a flat stone / in the tall grass / "
        "by the path / next to the pump / on an old bench / beside the stream / under the washing line"
    ),
    "by": Slot(
        "down the lane / out of the hedge / along the path / over the hill / around the corner / through the long grass / up from the river / "
        "across the bridge / out of the fog / along the garden wall"
    ),
    "way": Slot(
        "through the dark forest / over three hills / along the river / across the wide fields / past the sleeping village / up a steep path / "
        "around the marsh / under the railway bridge / between the tall rocks / along the beach"
    ),
    "advice": Slot(
        "breathe slowly and begin again / start small and take your time / laugh when it goes wrong / listen before you begin / "
        "think of something nice / practise a little every day / look ahead and not at your feet / count to ten and try once more"
    ),
    "span": Slot("three days / a whole week / two weeks / ten days / almost a month / five days"),
    "until": Slot(
        "the sun went down / the clock struck four / the moon came up / everything was done / the stars came out / the lamps were lit / supper was ready"
    ),
    "storm": Slot("a wild storm / a howling wind / a heavy hailstorm / a great gale / a thunderstorm", fixed=True),
    "part": Slot("roof / front door / chimney / kitchen window / garden wall / staircase / fence / porch", fixed=True),
    "tool": Slot("a hammer / a long ladder / a pot of glue / a bag of nails / a strong rope / a good saw / a bucket of paint", fixed=True),
    "fix": Slot(
        "cleared away the broken pieces / measured everything twice / sawed the planks / mixed the plaster / hammered in the nails / "
        "painted it all green / tied it up with rope / swept up the dust"
    ),
    "tale": Slot(
        "a ship made of glass / a king who could not sleep / a cloud that was afraid of heights / a lost star / a bell under the sea / "
        "a giant with cold feet / a very polite thief / a mountain that sneezed / a clock that ran backwards / a queen who loved soup"
    ),
    "ingredient": Slot("flour / honey / butter / sugar / milk / cinnamon / salt", fixed=True),
    "seller": Slot("the miller / the old baker / the ferryman / the beekeeper / the shopkeeper / the farmer / the gardener", fixed=True),
    "wear": Slot("a warm coat / a straw hat / two pairs of socks / a long green cloak / a rain hat / a pair of big boots"),
    "sound": Slot("a soft tapping / a strange whisper / a tiny sneeze / a sad little song / a scratching noise / a long sigh", fixed=True),
    "from": Slot("behind the door / up in the attic / under the window / down in the cellar / outside in the yard / close to the chimney"),
    "light": Slot("a candle / a lamp / an old lantern / the last match"),
    "look": Slot("wet feet / a torn coat / a heavy suitcase / a broken umbrella / a runny nose / a map that was upside down"),
    "food": Slot("a piece of cheese / six plums / a seed cake / a bag of nuts / some bread and butter / a jar of pickles / two red apples", fixed=True),
    "bag": Slot("a small basket / a leather bag / an old rucksack / a spotted cloth"),
    "obstacle": Slot("a wide river / a deep gorge / a thick hedge of thorns / a locked gate / a muddy swamp / a field of sharp rocks", fixed=True),
    "bright": Slot(
        "more beautiful than in any book / shining in the evening light / bigger than a dream / all silver and blue / as still as a held breath / "
        "glowing like a thousand candles"
    ),
    "weekday": Slot("Monday / Tuesday / Wednesday / Thursday / Friday / Saturday / Sunday"),
}

# Pairs of slots over the same entries that must not be the same in one story.
APART = [("hero", "friend"), ("kind", "friendkind"), ("mood", "friendmood"), ("habit", "pastime")]
