"""The toy language the demo model is trained on: short stories from a grammar, and noise text.

Everything here is written for this project, so the checkpoint holds no text of anybody else.
Two things matter for what the model learns:

* the people in the stories have made-up names, fresh in each story and seldom one token long,
  so a name that comes back can be predicted only by copying it from where it stood before;
* the other words are few and used over and over, so the sentences themselves are easy to learn.

``make_story`` writes a story, ``make_noise`` a line of random words; both draw from the random
generator they are given and from nothing else.
"""

import random
import re

CONSONANTS = ("b", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z")
ONSETS = (*CONSONANTS, "sh", "th")
VOWELS = ("a", "e", "i", "o", "u")
SYLLABLES = tuple(onset + vowel for onset in ONSETS for vowel in VOWELS)
CODAS = ("", "", "", "n", "l", "r", "m", "s", "x", "nd", "lk")

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PUNCTUATION = ",.;:!?-'\"()/<>_=+*#&%$@[]{}\n"

# A pronoun set is: subject, object, possessive.
PRONOUNS = {"boy": ("he", "him", "his"), "girl": ("she", "her", "her")}
KINDS = (
    *("fox", "bear", "goat", "rabbit", "mouse", "owl", "duck", "frog", "wolf", "hen"),
    *("baker", "miller", "farmer", "sailor", "painter", "shepherd", "weaver", "king's cook"),
    *("boy", "girl", "boy", "girl"),
)

# Words in braces are replaced: first from what is fixed for the whole story (the hero, the thing
# the story is about, ...), else by a random line of the rule of that name, and so on inside it.
RULES: dict[str, tuple[str, ...]] = {
    "trait": (
        *("brave", "kind", "clever", "shy", "small", "old", "young", "happy", "quiet", "lonely"),
        *("cheerful", "patient", "curious", "proud", "gentle", "hungry", "careful", "lazy"),
    ),
    "look": (
        *("red", "blue", "green", "golden", "silver", "tiny", "big", "round", "shiny", "heavy"),
        *("broken", "strange", "pretty", "wooden", "dusty", "warm"),
    ),
    "object": (
        *("lantern", "kettle", "ring", "key", "drum", "flute", "basket", "hat", "coat", "bell"),
        *("book", "map", "mirror", "spoon", "button", "box", "kite", "boat", "ladder", "rope"),
    ),
    "instrument": ("flute", "drum", "bell", "fiddle", "harp", "horn"),
    "food": (
        *("bread", "soup", "apples", "honey", "cheese", "plums", "cake", "carrots", "pie"),
        *("berries", "milk", "nuts"),
    ),
    "inside": (
        *("forest", "valley", "village", "garden", "castle", "meadow", "cave", "mill", "tower"),
        *("barn", "town", "orchard"),
    ),
    "beside": (
        *("river", "lake", "hill", "bridge", "well", "road", "sea", "gate", "pond", "old tree"),
        *("waterfall", "market"),
    ),
    "house": ("house", "cottage", "hut", "tent", "cabin", "farm", "little room"),
    "place": ("in the {inside}", "by the {beside}", "near the {beside}"),
    "somewhere": ("in the {inside}", "beside the {beside}", "behind the {house}"),
    "day": (
        *("One day", "One morning", "One evening", "The next day", "One cold night"),
        *("One summer day", "Early in the morning", "Late in the afternoon"),
    ),
    "often": ("Every day", "Every morning", "Every evening", "All summer", "In the winter"),
    "then": ("Then", "After a while", "Soon", "At last", "After that", "Before long"),
    "weather": (
        *("The sun was shining", "The rain was falling", "The wind was cold", "It was snowing"),
        *("The sky was dark", "The stars were bright", "The moon was full", "It was very hot"),
    ),
    "work": (
        *("worked in the garden", "swept the floor", "walked to the {beside}", "baked {food}"),
        *("fed the birds", "carried water from the well", "sang a song", "looked at the stars"),
        *("picked {food}", "told a story to the children", "played by the {beside}"),
        *("cleaned the {object}", "slept under a tree", "counted the sheep"),
    ),
    "feeling": ("happy", "sad", "tired", "afraid", "proud", "surprised", "angry", "hungry"),
    "sadly": ("sad", "afraid", "worried", "tired", "angry"),
    "gladly": ("happy", "glad", "proud", "surprised", "full of joy"),
    "greet": ("Good morning", "Hello", "Good evening", "Good day", "Welcome", "Dear friend"),
    "said": ("said", "asked", "whispered", "cried", "answered", "called"),
    "opening": (
        "Once there was a {trait} {kind} named {hero}.",
        "Once there was a {trait} {kind} called {hero}, who lived {home}.",
        "Once upon a time there was a {kind} named {hero}.",
        "Long ago, a {trait} {kind} named {hero} lived {home}.",
        "There was a {trait} {kind} who lived {home}. {His} name was {hero}.",
        "{hero} was a {trait} {kind} who lived in a {look} {house} {home}.",
        "This is the story of {hero}, a {trait} and {trait} {kind}.",
    ),
    "living": (
        "{hero} lived in a {look} {house} {home}.",
        "{often}, {hero} {work} and {work}.",
        "{often} {he} {work}, and {hero} was {gladly}.",
        "{hero} had a {thing}, and {he} loved it very much.",
        "{hero} liked {food}, but {he} liked {food} even more.",
        "People {place} knew {hero} well, because {he} often {work}.",
    ),
    "meeting": (
        "{day}, {hero} met a {trait} {kind2} named {friend} {place}.",
        "{day}, a {trait} {kind2} came to the {house}. {His2} name was {friend}.",
        "{weather} when {hero} saw {friend} the {kind2} {place}.",
        "{day}, {hero} walked to the {beside} and met {friend}, a {trait} {kind2}.",
        "{hero} had a friend, a {kind2} named {friend}. {friend} lived {place}.",
    ),
    "hello": (
        '"{greet}, {friend}," said {hero}. "{greet}, {hero}," said {friend}.',
        '"{greet}," said {hero}. "Who are you?" "I am {friend}," said the {kind2}.',
        '"{greet}, {hero}," said {friend}. "Where are you going?" "To the {goal}," said {hero}.',
        '"What is your name?" asked {friend}. "My name is {hero}," said the {kind}.',
        "{friend} looked at {hero}, and {hero} looked at {friend}.",
    ),
    "loss": (
        "{day}, the {thing} was gone. {hero} was very {sadly}.",
        "{day}, {hero} lost the {thing} {place}.",
        "But {day_low} {hero} could not find the {thing}.",
        "{day}, the wind took the {thing} and carried it away.",
    ),
    "search": (
        "{hero} looked {somewhere} and {somewhere}, but the {thing} was not there.",
        "{he_cap} looked {somewhere}, but {he} found only a {look} {object}.",
        '"Where is my {thing}?" cried {hero}. Nobody knew.',
        "{hero} and {friend} looked for the {thing} all day long.",
        '"Have you seen my {thing}, {friend}?" asked {hero}. "No," said {friend}.',
    ),
    "found": (
        "{then} {friend} found the {thing} {somewhere} and gave it to {hero}.",
        "{then} {hero} saw the {thing} {somewhere}. It was covered with dust.",
        '"Look, {hero}!" cried {friend}. The {thing} was lying {somewhere}.',
        "{then} {friend} came back with the {thing}, and {hero} was {gladly}.",
    ),
    "finding": (
        "{day}, {hero} found a {thing} {somewhere}.",
        "{day}, {hero} dug a hole {place} and found a {thing}.",
        "{weather} when {hero} saw a {thing} {somewhere}.",
        "An old {kind} gave {hero} a {thing} and went away.",
    ),
    "wonder": (
        '"What a {look} {object}!" said {hero}. "Whose is it?"',
        '"Whose {thing} is this?" asked {hero}.',
        "{hero} showed the {thing} to {friend}. {friend} was {gladly}.",
        "{hero} did not know what to do with the {thing}.",
        '"That {thing} is mine," said {friend}. "I lost it {somewhere}."',
    ),
    "share": (
        "So {hero} gave the {thing} to {friend}, and {friend} gave {hero} some {food}.",
        '"You may have it, {friend}," said {hero}. "Thank you, {hero}," said {friend}.',
        "{hero} and {friend} took the {thing} to the {house} {place}.",
        "{then} {hero} put the {thing} in a {look} box for {friend}.",
    ),
    "trouble": (
        "{day}, {hero} fell into the {beside}. {weather}.",
        "{weather}, and {hero} was lost {place}.",
        "{day}, there was no {food} in the {house}, and {hero} was hungry.",
        "{day}, a big storm came, and the {house} of {hero} was broken.",
        "{day}, {hero} was ill and could not get up.",
    ),
    "plea": (
        '"Help me, {friend}!" cried {hero}. "I am {sadly}!"',
        '"What can I do?" asked {hero}. {friend} heard {him} and came at once.',
        '"Do not be {sadly}, {hero}," said {friend}. "I will help you."',
        "{hero} called and called. {then} {friend} heard {him}.",
    ),
    "rescue": (
        "{friend} took a {look} rope and pulled, and soon {hero} was safe.",
        "{friend} brought {food} and {food}, and {hero} ate and was {gladly}.",
        "{friend} took {hero} by the hand, and they walked home together.",
        "{friend} worked all night. In the morning {hero} was {gladly}.",
    ),
    "plan": (
        '"Let us go to the {goal}, {friend}," said {hero}. "Yes, {hero}," said {friend}.',
        '"I want to see the {goal}," said {hero}. "I will come with you," said {friend}.',
        "{hero} and {friend} wanted to see the {goal} before the winter.",
        '"Tell me about the {goal}, {friend}," said {hero}. "It is far away," said {friend}.',
    ),
    "travel": (
        "{hero} carried the {thing}, and {friend} carried the {food}.",
        "They walked through the {inside} and over the {beside}. {weather}.",
        "{weather}, but {hero} and {friend} walked on.",
        "On the way {friend} sang a song, and {hero} {work}.",
        "At night they slept {somewhere}, and {friend} told {hero} a story.",
        "{then} they came to a {look} {house}. There was nobody in it.",
    ),
    "arrive": (
        "{then} they came to the {goal}, and {hero} was {gladly}.",
        '"We are here!" cried {friend}. {hero} was too tired to answer.',
        "When {hero} saw the {goal}, {he} laughed, and {friend} laughed too.",
    ),
    "feast": (
        "{day}, {hero} wanted to make a cake for {friend}.",
        "{hero} asked {friend} for {food}, and {friend} asked {hero} for {food}.",
        "They put {food}, {food} and {food} on the {look} table.",
        '"Do you like {food}, {friend}?" asked {hero}. "I like {food} more," said {friend}.',
        "All the people came with {food}, and {friend} played the {instrument}.",
    ),
    "quarrel": (
        '"That is my {thing}!" cried {friend}. "No, it is mine," said {hero}.',
        "{friend} took the {thing} and ran away from {hero}.",
        "{hero} was angry with {friend}, and {friend} was angry with {hero}.",
        "All day {hero} did not speak to {friend}.",
    ),
    "peace": (
        '"I am sorry, {hero}," said {friend}. "I am sorry too, {friend}," said {hero}.',
        "{then} {friend} gave the {thing} back, and {hero} was not angry any more.",
        "{hero} baked {food} for {friend}, and they were friends again.",
        '"We can share it," said {hero}. So {hero} and {friend} shared the {thing}.',
    ),
    "ending": (
        "From that day on, {hero} and {friend} were good friends.",
        '"Thank you, {friend}," said {hero}. And they went home together.',
        "And {hero} never lost the {thing} again.",
        "{hero} went home to the {house} {home} and slept well.",
        "And {hero} and {friend} lived happily {home}.",
        '"Good night, {hero}," said {friend}. "Good night, {friend}," said {hero}.',
        "{friend} was {gladly}, and so was {hero}.",
    ),
}

PLOTS = (
    "{opening} {living} {meeting} {hello} {loss} {search} {found} {ending}",
    "{opening} {living} {loss} {meeting} {hello} {search} {search} {found} {ending}",
    "{opening} {finding} {meeting} {hello} {wonder} {wonder} {share} {ending}",
    "{opening} {living} {living} {meeting} {hello} {trouble} {plea} {rescue} {ending}",
    "{opening} {meeting} {hello} {plan} {travel} {travel} {travel} {arrive} {ending}",
    "{opening} {living} {meeting} {hello} {feast} {feast} {feast} {ending}",
    "{opening} {meeting} {finding} {quarrel} {quarrel} {peace} {ending}",
    "{opening} {living} {finding} {meeting} {wonder} {plan} {travel} {arrive} {ending}",
)

SLOT = re.compile(r"\{(\w+)\}")
VOWEL_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")


def make_name(rng: random.Random) -> str:
    """Make up a name of two or three syllables, such as "Sharomel"."""
    syllables = rng.sample(SYLLABLES, rng.choice((2, 2, 3)))
    return "".join((*syllables, rng.choice(CODAS))).capitalize()


def make_story(rng: random.Random) -> str:
    """Write one story: a plot whose slots are filled until no slot is left."""
    text = rng.choice(PLOTS)
    fixed = _choose_story_words(rng)
    used: set[str] = set()
    while match := SLOT.search(text):
        slot = match.group(1)
        filling = fixed[slot] if slot in fixed else _choose_unused(rng, RULES[slot], used)
        text = text[: match.start()] + filling + text[match.end() :]
    return VOWEL_ARTICLE.sub(r"\1n ", text)


def make_noise(rng: random.Random, words: int) -> str:
    """Write random words: words of the stories, made-up ones, names, numbers or a mix of them.

    The model has to learn that *any* text which came before may come again, not only stories.
    """
    styles = (_story_word, _letters, make_name, _digits, _marked_letters)
    weights = [rng.random() ** 3 for _ in styles]  # cubed: mostly one or two styles in a line
    chosen = rng.choices(styles, weights, k=words)
    return " ".join(style(rng) for style in chosen)


def _choose_story_words(rng: random.Random) -> dict[str, str]:
    """Choose what stays the same through a story: who it is about, where and with what thing."""
    hero, friend = make_name(rng), make_name(rng)
    kind, kind2 = rng.choice(KINDS), rng.choice(KINDS)
    he, him, his = PRONOUNS[kind if kind in PRONOUNS else rng.choice(("boy", "girl"))]
    _, _, his2 = PRONOUNS[kind2 if kind2 in PRONOUNS else rng.choice(("boy", "girl"))]
    home = rng.choice(RULES["place"]).format(
        inside=rng.choice(RULES["inside"]), beside=rng.choice(RULES["beside"])
    )
    thing = f"{rng.choice(RULES['look'])} {rng.choice(RULES['object'])}"
    return {
        "hero": hero,
        "kind": kind,
        "he": he,
        "him": him,
        "he_cap": he.capitalize(),
        "His": his.capitalize(),
        "friend": friend,
        "kind2": kind2,
        "His2": his2.capitalize(),
        "home": home,
        "thing": thing,
        "goal": rng.choice(RULES["beside"]),
        "house": rng.choice(RULES["house"]),
        "day_low": rng.choice(("one day", "one morning", "in the evening", "the next day")),
    }


def _choose_unused(rng: random.Random, lines: tuple[str, ...], used: set[str]) -> str:
    """Choose a line the story has not had yet, so that it does not say the same thing twice."""
    line = rng.choice([line for line in lines if line not in used] or lines)
    used.add(line)
    return line


def _story_word(rng: random.Random) -> str:
    return rng.choice(STORY_WORDS)


def _letters(rng: random.Random) -> str:
    return "".join(rng.choices(LETTERS, k=rng.randint(2, 8)))


def _digits(rng: random.Random) -> str:
    return str(rng.randrange(10 ** rng.randint(1, 4)))


def _marked_letters(rng: random.Random) -> str:
    """Make up a word with a capital or punctuation, as in code and in other people's prose."""
    word = _letters(rng)
    if rng.random() < 0.3:
        word = rng.choice((word.upper(), word.capitalize()))
    return rng.choice((word, "")) + rng.choice(PUNCTUATION)


def _collect_story_words() -> tuple[str, ...]:
    lines = (line for rule in RULES.values() for line in rule)
    return tuple(sorted({word for line in lines for word in SLOT.sub(" ", line).split()}))


STORY_WORDS = _collect_story_words()
