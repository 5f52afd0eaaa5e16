"""The world of the bundled model: the emoji, the words for them, and the artwork styles.

One line per emoji: the character, its names (any of them captions it), and its class words.
A class word is shared by several emoji, so a vague prompt ("fruit") has many right answers:
that is what makes diversity countable.
"""

from dataclasses import dataclass

EMPTY = ""
"""The caption of classifier-free guidance."""

STYLES = {
    "noto": "cartoon",
    "twemoji": "flat",
    "fluent-emoji-flat": "geometric",
    "fluent-emoji-3d": "3d",
    "noto-v1": "blob",
}
"""Artwork pack → the style word used in prompts."""

_TABLE = """
😀|grinning face, smiling face with open mouth|happy face, face
😄|laughing face, big smile with closed eyes|happy face, face
😂|face with tears of joy, crying with laughter|happy face, face
🙂|slightly smiling face, smiley|happy face, face
😊|blushing smiling face, shy smile|happy face, face
😉|winking face, wink|happy face, face
😇|angel face with halo, smiling face with halo|happy face, face
😍|face with heart eyes, smiling face in love|happy face, face
😘|face blowing a kiss, kissing face|happy face, face
😋|yummy face, face licking lips|happy face, face
😜|winking face with tongue, crazy face|happy face, face
😎|cool face with sunglasses, face with sunglasses|happy face, face
🤓|nerd face with glasses, nerd|happy face, face
🤗|hugging face, hug|happy face, face
🤔|thinking face, pondering face|face
😐|neutral face, straight face|face
🙄|face rolling its eyes, annoyed face|face
😴|sleeping face, tired face|face
😷|face with medical mask, sick face with mask|sick face, face
🤒|face with thermometer, face with fever|sick face, face
🤢|nauseated face, green sick face|sick face, face
🤕|face with bandage, hurt face|sick face, face
😢|crying face, face with a tear|sad face, face
😭|loudly crying face, sobbing face|sad face, face
🙁|frowning face, unhappy face|sad face, face
😞|disappointed face, downcast face|sad face, face
😱|screaming face, scared face|face
😮|surprised face, face with open mouth|face
😡|red angry face, pouting face|angry face, face
😠|angry face with frown, mad face|angry face, face
🤠|cowboy face with hat, cowboy|happy face, face
🤡|clown face, clown|face
😈|smiling devil, purple devil with horns|monster, face
💀|skull, skeleton head|monster
👻|ghost, spook|monster
👽|alien, extraterrestrial|monster
🤖|robot face, robot|monster
👹|red ogre, demon mask|monster
🎃|halloween pumpkin, jack-o-lantern|monster
💩|pile of poo, smiling poo|monster
😺|smiling cat face, happy cat|cat, animal
😸|grinning cat with smiling eyes, laughing cat|cat, animal
😹|cat with tears of joy, cat crying with laughter|cat, animal
😻|cat with heart eyes, cat in love|cat, animal
😼|smirking cat, cat with wry smile|cat, animal
🙀|scared cat, weary screaming cat|cat, animal
😿|crying cat, sad cat|cat, animal
😾|angry cat, pouting cat|cat, animal
🐱|cat face, kitten face|cat, pet, animal
🐶|dog face, puppy|pet, animal
🐭|mouse face, mouse|pet, animal
🐹|hamster face, hamster|pet, animal
🐰|rabbit face, bunny|pet, animal
🦊|fox face, fox|wild animal, animal
🐻|bear face, brown bear|wild animal, animal
🐼|panda face, panda|wild animal, animal
🐨|koala face, koala|wild animal, animal
🐯|tiger face, tiger|wild animal, animal
🦁|lion face, lion|wild animal, animal
🐮|cow face, cow|farm animal, animal
🐷|pig face, pig|farm animal, animal
🐴|horse face, horse|farm animal, animal
🐔|chicken face, chicken|farm animal, bird, animal
🐑|sheep, ewe|farm animal, animal
🐸|frog face, frog|wild animal, animal
🐵|monkey face, monkey|wild animal, animal
🦄|unicorn face, unicorn|animal
🐧|penguin, little penguin|bird, animal
🐤|baby chick, yellow chick|bird, animal
🦉|owl, brown owl|bird, animal
🦆|duck, mallard duck|bird, animal
🐝|honeybee, bee|insect, animal
🐞|ladybug, lady beetle|insect, animal
🦋|butterfly, blue butterfly|insect, animal
🐛|caterpillar, green bug|insect, animal
🐌|snail, snail with shell|animal
🐢|turtle, green turtle|animal
🐍|snake, green snake|animal
🐘|elephant, gray elephant|wild animal, animal
🐙|octopus, octopus with tentacles|sea animal, animal
🦀|crab, red crab|sea animal, animal
🐠|tropical fish, colorful fish|fish, sea animal, animal
🐟|fish swimming, blue fish|fish, sea animal, animal
🐬|dolphin, jumping dolphin|sea animal, animal
🐳|spouting whale, whale|sea animal, animal
🐚|spiral shell, seashell|sea animal
🌸|cherry blossom, pink blossom|flower, plant
🌹|red rose, rose|flower, plant
🌻|sunflower, yellow sunflower|flower, plant
🌷|tulip, pink tulip|flower, plant
🌼|daisy, yellow blossom|flower, plant
🌺|hibiscus, tropical flower|flower, plant
💐|bouquet of flowers, bouquet|flower, plant
🌵|cactus, desert cactus|tree, plant
🌲|evergreen tree, pine tree|tree, plant
🌳|deciduous tree, round green tree|tree, plant
🌴|palm tree, tropical palm|tree, plant
🍀|four leaf clover, lucky clover|leaf, plant
🍁|maple leaf, autumn leaf|leaf, plant
🍄|mushroom, red toadstool|plant
🍎|red apple, apple|fruit, food
🍏|green apple, sour apple|fruit, food
🍐|pear, green pear|fruit, food
🍊|orange, tangerine|fruit, food
🍋|lemon, yellow lemon|fruit, food
🍌|banana, bananas|fruit, food
🍉|watermelon, slice of watermelon|fruit, food
🍇|grapes, bunch of grapes|fruit, food
🍓|strawberry, red strawberry|fruit, food
🍒|cherries, two cherries|fruit, food
🍑|peach, ripe peach|fruit, food
🍍|pineapple, ananas|fruit, food
🥝|kiwi, kiwi fruit|fruit, food
🍅|tomato, red tomato|vegetable, food
🍆|eggplant, aubergine|vegetable, food
🥕|carrot, orange carrot|vegetable, food
🌽|corn, ear of corn|vegetable, food
🌶|hot pepper, red chili|vegetable, food
🥑|avocado, half avocado|vegetable, food
🍕|pizza, slice of pizza|fast food, food
🍔|hamburger, burger|fast food, food
🍟|french fries, fries|fast food, food
🌭|hot dog, sausage in a bun|fast food, food
🌮|taco, mexican taco|fast food, food
🍿|popcorn, bucket of popcorn|snack, food
🍩|doughnut, donut|sweet, dessert, food
🍪|cookie, chocolate chip cookie|sweet, dessert, food
🎂|birthday cake, cake with candles|cake, dessert, food
🍰|slice of cake, shortcake|cake, dessert, food
🍦|soft ice cream, ice cream cone|sweet, dessert, food
🍭|lollipop, swirl lollipop|sweet, food
🍬|candy, wrapped candy|sweet, food
🍫|chocolate bar, chocolate|sweet, food
🍳|fried egg, egg in a pan|food
🍞|loaf of bread, bread|food
🧀|cheese, cheese wedge|food
🍣|sushi, raw fish on rice|food
☕|cup of coffee, coffee|drink
🍺|mug of beer, beer|drink
🍷|glass of wine, red wine|drink
🍵|cup of green tea, green tea|drink
🍹|tropical drink, cocktail|drink
❤|red heart, love heart|heart
💛|yellow heart, gold heart|heart
💚|green heart, heart in green|heart
💙|blue heart, heart in blue|heart
💜|purple heart, violet heart|heart
💔|broken heart, cracked heart|heart
💖|sparkling heart, heart with stars|heart
💝|heart with ribbon, gift heart|heart
💘|heart with arrow, cupid heart|heart
☀|sun, bright sun|weather, sky
🌞|sun with face, smiling sun|weather, sky
🌙|crescent moon, moon|sky
⭐|yellow star, star|sky
☁|cloud, white cloud|weather, sky
⛅|sun behind cloud, partly sunny|weather, sky
🌧|rain cloud, rain|weather, sky
⛈|thunderstorm, cloud with lightning and rain|weather, sky
❄|snowflake, ice crystal|weather
⛄|snowman, snowman with hat|weather
🌈|rainbow, colorful rainbow|weather, sky
⚡|lightning bolt, high voltage|weather
🔥|fire, flame|weather
💧|water drop, droplet|weather
☔|umbrella in the rain, umbrella|weather
🌍|globe, planet earth|sky
🚗|red car, automobile|car, vehicle
🚕|taxi, yellow cab|car, vehicle
🚙|blue car, suv|car, vehicle
🚓|police car, patrol car|car, vehicle
🚌|bus, city bus|vehicle
🚑|ambulance, emergency van|vehicle
🚒|fire engine, fire truck|vehicle
🚚|delivery truck, truck|vehicle
🚜|tractor, farm tractor|vehicle
🚲|bicycle, bike|vehicle
🚂|locomotive, steam train|vehicle
✈|airplane, plane|aircraft, vehicle
🚁|helicopter, chopper|aircraft, vehicle
🚀|rocket, space rocket|aircraft, vehicle
⛵|sailboat, sailing boat|boat, vehicle
🚢|ship, cruise ship|boat, vehicle
⚽|soccer ball, football|ball, sport
🏀|basketball, orange ball|ball, sport
🏈|american football, brown football|ball, sport
⚾|baseball, white ball|ball, sport
🎾|tennis ball, tennis|ball, sport
🏆|trophy, gold cup|sport
🎸|guitar, electric guitar|musical instrument, music
🎺|trumpet, brass trumpet|musical instrument, music
🎻|violin, fiddle|musical instrument, music
🥁|drum, drum with drumsticks|musical instrument, music
🎈|balloon, red balloon|party
🎁|wrapped gift, present|party
🎉|party popper, confetti|party
👑|crown, gold crown|treasure
💎|gem stone, diamond|treasure
💰|money bag, bag of money|treasure
🔑|key, old key|object
🔔|bell, golden bell|object
💡|light bulb, idea|object
⏰|alarm clock, clock|object
📷|camera, photo camera|object
🎨|artist palette, paint palette|object
🏠|house, home|building
🏰|castle, european castle|building
"""


@dataclass(frozen=True)
class Emoji:
    """One thing: its character, the names that caption it and its class words."""

    char: str
    names: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def code_point(self) -> str:
        """The Unicode code point in lower-case hexadecimal."""
        return f"{ord(self.char):x}"


def _parse(line: str) -> Emoji:
    char, names, classes = line.split("|")
    return Emoji(char, tuple(names.split(", ")), tuple(classes.split(", ")))


EMOJI: tuple[Emoji, ...] = tuple(_parse(line) for line in _TABLE.strip().splitlines())
