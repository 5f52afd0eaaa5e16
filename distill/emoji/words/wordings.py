"""The ways to ask for something. One text is put together from dice, so that hardly two are alike.

The wordings of `benchmark.prompts` are kept out: no "icon", no "drawing", "the" never at the beginning, and never
"one" and "please" in one text.
"""

from collections.abc import Sequence

DICE = 11
"""Numbers that one text is made from, each int in [0, 2³¹)."""
OPENERS = (
    *("",) * 20,
    "a picture of", "draw", "please draw", "image of", "i want", "show me", "this is", "can you draw", "paint",
    "give me", "make", "an illustration of", "a sticker of", "emoji of", "sketch of", "here is", "generate",
    "i would like", "create", "a photo of",
)  # fmt: skip
DETERMINERS = ("", "", "a", "a", "a", "some", "my", "your", "that")
AFTER_OPENERS = (*DETERMINERS, "the", "one")
ADJECTIVES = (*("",) * 24, "small", "nice", "lovely", "beautiful", "simple", "funny", "single", "typical")
ENDINGS = (
    *("",) * 24,
    "for me", "on white", "on a white background", "for my friend", "for a card", "now", "please", "thanks",
    "in the middle", "in high quality", "in detail", "!",
)  # fmt: skip
STYLED = (
    "{style} {subject}", "{style} {subject}", "{style} style {subject}", "{subject}, {style} style",
    "{subject} in {style} style", "{subject}, {style}", "{subject} drawn in a {style} style",
)  # fmt: skip
OTHER_STYLE_WORDS = {
    "cartoon": ("comic", "cartoonish"),
    "flat": ("plain flat", "flat design"),
    "geometric": ("modern", "clean geometric"),
    "3d": ("three dimensional", "rendered 3d"),
    "blob": ("gumdrop", "blobby"),
}
NONSENSE = 8
"""One text in this many has a word that means nothing, so that the encoders learn to pass over unknown words."""
_CASES = (str.capitalize, str.capitalize, str.title, str)
_LETTERS = "abcdefghijklmnoprstuvwy"


def plain(subject: str, style: str | None) -> str:
    """The shortest way to say it."""
    return f"{style} {subject}" if style else subject


def worded(subject: str, style: str | None, dice: Sequence[int], nonsense: bool = True) -> str:
    """One of the ways to ask for `subject` in `style`, by `DICE` numbers; without `nonsense`, of known words alone."""
    opener, adjective = _pick(OPENERS, dice[0]), _pick(ADJECTIVES, dice[1])
    determiner = _pick(AFTER_OPENERS if opener else DETERMINERS, dice[2])
    ending = _pick([one for one in ENDINGS if determiner != "one" or one != "please"], dice[3])
    if determiner == "one" and "please" in opener:
        determiner = "a"
    if subject.startswith("some"):  # as "something to eat", which is said without "a"
        determiner = adjective = ""
    asked = subject
    if style:
        said = _pick((style, style, style, *OTHER_STYLE_WORDS[style]), dice[4])
        asked = _pick(STYLED, dice[5]).format(style=said, subject=subject)
    words = f"{adjective} {asked}".split()
    if determiner == "a" and words[0][0] in "aeiou":
        determiner = "an"
    words = [*opener.split(), determiner, *words, ending]
    if nonsense and dice[6] % NONSENSE == 0:
        place = (0, len(opener.split()), len(words))[dice[7] % 3]
        words.insert(place, _nonsense(dice[8], 3 + dice[9] % 4))
    return _CASES[min(dice[10] % 16, 3)](" ".join(word for word in words if word))


def _pick(among: Sequence[str], number: int) -> str:
    return among[number % len(among)]


def _nonsense(number: int, length: int) -> str:
    letters = []
    for _ in range(length):
        number, letter = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[letter])
    return "".join(letters)
