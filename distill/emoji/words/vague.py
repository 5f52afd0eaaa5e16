"""Vague words: what people say for a class of things, and the colours of things.

`world` has one word for a class; here are the other words for it, and the colours that a thing has in every style.
"""

from distill.emoji.world import EMOJI, Emoji

SYNONYMS = {
    "face": ("emoticon", "facial expression", "somebody's mood"),
    "happy face": ("happy smile", "something happy", "good mood", "cheerful face", "joy"),
    "sad face": ("something sad", "bad mood", "gloomy face", "sadness"),
    "angry face": ("something angry", "furious face", "anger"),
    "sick face": ("ill face", "illness", "somebody ill"),
    "monster": ("something scary", "spooky thing", "scary monster", "halloween"),
    "animal": ("creature", "beast", "cute animal", "animal friend"),
    "cat": ("kitty", "feline", "cat emoji"),
    "pet": ("house pet", "pet animal", "animal at home"),
    "wild animal": ("wild beast", "zoo animal", "animal in the wild"),
    "farm animal": ("animal on a farm", "livestock", "farmyard animal"),
    "bird": ("something with feathers", "birdie", "feathered animal"),
    "insect": ("bug", "creepy crawly", "small insect", "little bug"),
    "sea animal": ("sea creature", "something from the sea", "ocean animal", "underwater animal"),
    "fish": ("swimming fish", "little fish"),
    "flower": ("bloom", "something that blooms", "pretty flower", "garden flower"),
    "plant": ("something that grows", "growing plant", "nature"),
    "tree": ("big tree", "something in the forest"),
    "leaf": ("single leaf", "foliage"),
    "fruit": ("something fruity", "piece of fruit", "fresh fruit", "juicy fruit"),
    "vegetable": ("veggie", "something healthy", "fresh vegetable"),
    "food": ("something to eat", "meal", "something tasty", "something delicious", "bite to eat"),
    "fast food": ("junk food", "takeaway food", "street food"),
    "snack": ("salty snack",),
    "sweet": ("sweets", "something sweet", "sugary treat", "sweet treat"),
    "dessert": ("sweet dessert", "pudding", "something for dessert"),
    "cake": ("sweet cake",),
    "drink": ("something to drink", "beverage", "refreshing drink"),
    "heart": ("symbol of love", "something romantic", "love", "valentine"),
    "weather": ("weather symbol", "weather forecast"),
    "sky": ("something in the sky",),
    "car": ("motor car", "auto"),
    "vehicle": ("something to drive", "means of transport", "transport"),
    "aircraft": ("something that flies", "flying machine"),
    "boat": ("vessel", "something that sails", "watercraft"),
    "ball": ("ball for a game", "something to throw"),
    "sport": ("sports equipment", "something for sport"),
    "musical instrument": ("instrument", "something to play music on"),
    "music": ("something musical",),
    "party": ("something for a party", "celebration", "party thing"),
    "treasure": ("something precious", "valuable thing", "riches"),
    "object": ("useful thing", "everyday object", "household item"),
    "building": ("place to live", "architecture"),
}
COLOURS = {
    "red": "❤💔🍎🍓🍒🍅🌶🌹🐞🦀🚗🚒🎈👹😡🍁",
    "orange": "🍊🥕🏀🎃🦊🐯",
    "yellow": "💛🍋🍌🌻⭐☀🌞🌙⚡🐤🚕🧀🍍🌽👑🔑🔔💡🦁",
    "green": "💚🍏🍐🌲🌳🌵🍀🐸🐢🐍🥝🥑🤢🎾",
    "blue": "💙💧🐟🐬🐳🚙🦋💎❄🌍",
    "purple": "💜🍆🍇😈",
    "pink": "🌸🐷🌷🌺💖",
    "brown": "🐻🐵🍫🍪🦉🏈💩🐴🍞",
    "white": "☁🐑⛄👻💀⚾",
    "gray": "🐘🐨🐭",
}
WORD_WEIGHT = 2.0
"""How often the class's own word is said, against 1 for each of its synonyms and colours."""
_NAMES = frozenset(name for emoji in EMOJI for name in emoji.names)


def phrases(emoji: Emoji) -> dict[str, float]:
    """The vague phrases that may mean `emoji`, and how often each is said; the weights sum to 1."""
    weights = dict.fromkeys(emoji.classes, WORD_WEIGHT)
    weights |= {phrase: 1.0 for word in emoji.classes for phrase in SYNONYMS.get(word, ())}
    for colour in (colour for colour, things in COLOURS.items() if emoji.char in things):
        coloured = (f"{colour} thing", f"something {colour}", *(f"{colour} {word}" for word in emoji.classes))
        weights |= {phrase: 1.0 for phrase in coloured if phrase not in _NAMES}
    total = sum(weights.values())
    return {phrase: weight / total for phrase, weight in weights.items()}
