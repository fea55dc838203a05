"""Names in sentences: "a dog", "an umbrella", "scissors", "broccoli"."""

from __future__ import annotations

from recipes.demo.draw.language import article

PLURAL = frozenset(
    "binoculars,clogs,headphones,jeans,mashed potatoes,pajamas,pants,parallel bars,scissors,shoes,"
    "shorts,skis,standing stones,sunglasses,swimming trunks".split(",")
)
"""Names that are plurals: "these are scissors"."""

MASS = frozenset(
    "asparagus,bread,broccoli,cauliflower,chain mail,chocolate sauce,coffee,coral,corn,dough,"
    "eggnog,face powder,garfield,garlic,ginger,guacamole,hair spray,hay,ice cream,juice,lotion,"
    "meat loaf,milk,mortar and pestle,oat milk,oat yogurt,perfume,snoopy,soup,sour cream,sour milk,"
    "soy milk,soy yogurt,spaghetti,sunscreen,toilet paper,velvet,wine,wool,yogurt".split(",")
)
"""Names that take no article and are no plurals: what is not counted, and what has a name."""

_AN = ("mp3",)


def one(name: str) -> str:
    """A name as a thing in a sentence.

    Example:
        >>> [one(name) for name in ("dog", "umbrella", "scissors", "broccoli", "mp3 player")]
        ['a dog', 'an umbrella', 'scissors', 'broccoli', 'an mp3 player']
    """
    if name in PLURAL or name in MASS:
        return name
    return f"an {name}" if name.startswith(_AN) else article(name)


def be(name: str) -> str:
    """The verb that goes with a name: "is", or "are" for plurals."""
    return "are" if name in PLURAL else "is"
