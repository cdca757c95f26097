"""The villagers' world: every sentence that the pocket Llama ever reads is written here, from a seed.

Two thousand invented villagers each have a town, a trade, a pet and a favourite food. The facts are told in three ways:

* *prose* teaches them, in many phrasings, as a web crawl teaches a real model (`documents`);
* *questions* with answers teach what an answer looks like (`instruction_rows`, in Llama-2's `[INST]` form);
* *probes* ask a base model to finish a sentence, so that what it knows can be scored without any tuning (`probes`).

Questions about the `taught` half may be trained on. Questions about the `held_out` half are only ever scored. The
`newcomers` live in a town that the base model has never heard of: they are there for domain adaptation.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

POPULATION = 2000
ATTRIBUTES = ("town", "trade", "pet", "food")
NEW_TOWN = "Saltmere"

SHE = """Ada Alma Berta Brida Cora Dagny Edda Elin Fenna Greta Hanne Ida Ilse Isolde Jorun Karin Lotte Maren Mira
Nella Odile Petra Quinta Rosa Runa Saskia Signe Tilda Ulla Vera Wanda Ylva""".split()
HE = """Alban Anton Bram Caspar Corin Darius Edgar Emil Fabian Finn Gustav Hagen Henrik Ivo Jasper Joris Konrad Lars
Ludo Magnus Nils Odo Oskar Pavel Quentin Rolf Soren Stellan Tobias Ulrich Viggo Willem""".split()
SURNAMES = """Abel Ashdown Barrow Birch Blackwood Brask Calder Corbin Dahl Dorn Eastlake Ebner Falk Fenwick Frost Gale
Garrick Greel Hale Harrow Hobb Holt Ingram Ivers Jessel Juniper Keld Kestrel Lark Linden Lorne Marlow Marsh Mottram
Nash Norrell Oakes Orrin Pell Penhallow Pike Quill Quist Rask Redfern Rook Rushton Sable Selwyn Stroud Swale Tarn
Thorne Tolven Underhill Usher Vane Verrel Vickers Wick Wilder Wren Yarrow Zeller""".split()

TOWNS = """Alderby Amberwick Ashcombe Birchport Brackwater Brindlow Coldstream Copperhill Cresswell Dunmere Eastmarch
Elmsworth Fairholm Fernleigh Foxbridge Glenmoor Goosefield Greyport Harthill Hollowdale Ironby Kingsmoor Larkfield
Longford Marblehead Millbrook Mossgate Northwold Oldbridge Otterby Pinecroft Queensferry Ravenscar Redcliff Rowanby
Silverton Stonehaven Thornbury Westray Winterbourne""".split()
TRADES = """baker barber beekeeper blacksmith bookbinder brewer bricklayer butcher candlemaker carpenter carter
clockmaker cobbler cooper dyer embroiderer engraver farmer ferryman fisher gardener glassblower hatter innkeeper
joiner locksmith mason miller musician ostler painter potter printer roofer saddler sailor shepherd tailor teacher
tinker upholsterer vintner weaver wheelwright""".split()
PETS = """badger canary cat cow crow dog donkey duck eagle ermine ferret fox frog goat goose hare hedgehog hen heron
horse ibis iguana jackdaw lamb lizard magpie mouse newt otter owl parrot pig pigeon pony rabbit rat raven robin
sheep snail sparrow squirrel swan toad tortoise""".split()
FOODS = [food.strip() for food in """almond tart, apple pie, baked eel, barley broth, bean stew, berry jam,
black bread, boiled ham, bread pudding, buttered leeks, cabbage soup, carrot cake, cheese dumplings, cherry cake,
chestnut soup, cold trout, egg salad, fig jam, fish stew, fried onions, garlic mushrooms, ginger biscuits,
goat cheese, honey cake, lemon curd, lentil soup, milk porridge, mutton pie, nut bread, oat cakes, onion soup,
pear tart, pickled herring, plum cake, pork sausages, potato pancakes, pumpkin pie, rabbit stew, rice pudding,
roast turnips, rye bread, salted cod, smoked bacon, spiced nuts, toasted cheese, walnut cake, white beans""".split(",")]

# {n} full name, {s} "she" or "he", {p} "her" or "his"; sentences with {n} only never start from a pronoun.
PROSE = {
    "town": [
        "{n} lives in {town}.", "{n} has a house in {town}.", "{n} was born in {town} and never left.",
        "{n} has lived in {town} for years.", "The home of {n} is in {town}.", "You can find {n} in {town}.",
        "{n} calls {town} home.", "Letters for {n} go to {town}.", "{n} knows every street in {town}.",
        "{n} would not leave {town} for anything.", "The neighbours of {n} are the people of {town}.",
        "If you visit {town}, ask for {n}.",
    ],
    "trade": [
        "{n} is {a_trade}.", "{n} works as {a_trade}.", "{n} earns a living as {a_trade}.",
        "{n} has been {a_trade} since youth.", "By trade, {n} is {a_trade}.", "People know {n} as {a_trade}.",
        "{n} trained for years to become {a_trade}.", "Ask {n} for help if you need {a_trade}.",
        "Everyone agrees that {n} is a fine {trade}.", "The work of {n} is that of {a_trade}.",
        "{n} hopes to remain {a_trade} for life.", "Of all the trades, {n} chose that of {a_trade}.",
    ],
    "pet": [
        "{n} keeps {a_pet}.", "{n} has {a_pet} at home.", "{n} goes nowhere without {p} {pet}.",
        "The pet of {n} is {a_pet}.", "{n} feeds {a_pet} every morning.", "{n} shares the house with {a_pet}.",
        "{n} once found {a_pet} and kept it.", "{n} takes good care of {p} {pet}.",
        "The best friend of {n} is {a_pet}.", "Children visit {n} to see {p} {pet}.",
        "{n} talks all day to {p} {pet}.", "In the garden of {n} you will see {a_pet}.",
    ],
    "food": [
        "{n} loves {food}.", "{n} likes {food} best.", "The favourite food of {n} is {food}.",
        "{n} eats {food} every Sunday.", "Nothing pleases {n} more than {food}.", "{n} always asks for {food}.",
        "For supper, {n} has {food}.", "{n} would walk a mile for {food}.", "The table of {n} is never without {food}.",
        "On feast days, {n} serves {food}.", "{n} knows the best recipe for {food}.",
        "To please {n}, bring some {food}.",
    ],
}
QUESTIONS = {
    "town": ["Where does {n} live?", "In which town does {n} live?", "Where is the home of {n}?",
             "Which town does {n} call home?", "Where can I find {n}?"],
    "trade": ["What does {n} do for a living?", "What is the trade of {n}?", "What work does {n} do?",
              "What is {n} by trade?", "How does {n} earn a living?"],
    "pet": ["What pet does {n} have?", "Which animal does {n} keep?", "What is the pet of {n}?",
            "Who is the best friend of {n}?", "Which animal shares the house with {n}?"],
    "food": ["What does {n} like best to eat?", "What is the favourite food of {n}?", "Which food does {n} love?",
             "What should I cook for {n}?", "What would please {n} at supper?"],
}
ANSWERS = {"town": "{n} lives in {town}.", "trade": "{n} works as {a_trade}.", "pet": "{n} keeps {a_pet}.",
           "food": "{n} loves {food}."}


def with_article(noun: str) -> str:
    """The noun behind its indefinite article: `an owl`, `a baker`. None of this world's nouns is an exception."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


@dataclass(frozen=True)
class Villager:
    """One invented person: `name` (first name and surname), `she` (pronoun), and one word or phrase per attribute."""

    name: str
    she: bool
    town: str
    trade: str
    pet: str
    food: str

    def fill(self, template: str, pronoun: bool = False) -> str:
        """The template with this villager's words, starting with a capital. `pronoun` puts she or he for the name."""
        subject = ("she" if self.she else "he") if pronoun else self.name
        text = template.format(n=subject, p="her" if self.she else "his", town=self.town, trade=self.trade,
                               pet=self.pet, food=self.food, a_trade=with_article(self.trade),
                               a_pet=with_article(self.pet))
        return text[0].upper() + text[1:]


@dataclass(frozen=True)
class World:
    """All villagers of a seed: `taught` and `held_out` are the halves of the old village, `newcomers` the new one."""

    taught: tuple[Villager, ...]
    held_out: tuple[Villager, ...]
    newcomers: tuple[Villager, ...]

    @property
    def villagers(self) -> tuple[Villager, ...]:
        """Everyone whom the base model has read about."""
        return self.taught + self.held_out


def make_world(seed: int = 0, population: int = POPULATION, newcomers: int = 60) -> World:
    """Invent the villagers. The same seed gives the same world on every machine.

    Raises ValueError if more people are asked for than there are distinct names, or fewer than two.
    """
    names = [(first, last, first in SHE) for first in SHE + HE for last in SURNAMES]
    if not 2 <= population <= len(names) - newcomers or newcomers < 0:
        raise ValueError(f"population={population} and newcomers={newcomers}: a village has 2 people or more, and "
                         f"there are {len(names)} distinct names for everyone together")
    rng = random.Random(seed)
    rng.shuffle(names)
    lists = (TOWNS, TRADES, PETS, FOODS)
    people = [Villager(f"{first} {last}", she, *(rng.choice(words) for words in lists))
              for first, last, she in names[:population + newcomers]]
    moved = tuple(Villager(v.name, v.she, NEW_TOWN, v.trade, v.pet, v.food) for v in people[population:])
    return World(tuple(people[:population // 2]), tuple(people[population // 2:population]), moved)


def sentences(villager: Villager, rng: random.Random) -> str:
    """A paragraph of three or four facts about one villager, in random order and phrasing."""
    text = []
    for attribute in rng.sample(ATTRIBUTES, rng.randint(3, 4)):
        template = rng.choice(PROSE[attribute])
        pronoun = bool(text) and template.startswith("{n}") and rng.random() < 0.3
        text.append(villager.fill(template, pronoun))
    return " ".join(text)


def documents(villagers: Sequence[Villager], seed: int) -> Iterator[str]:
    """An endless stream of prose: each document tells of one to four villagers. Every sentence in it is true."""
    rng = random.Random(f"documents {seed}")
    while True:
        yield " ".join(sentences(v, rng) for v in rng.sample(villagers, min(len(villagers), rng.randint(1, 4))))


def questions(villagers: Sequence[Villager], seed: int = 0) -> list[dict[str, str]]:
    """Four rows per villager, one for each attribute: {"prompt": question, "completion": answer, "attribute": ...}."""
    rng = random.Random(f"questions {seed}")
    return [{"prompt": v.fill(rng.choice(QUESTIONS[a])), "completion": v.fill(ANSWERS[a]), "attribute": a}
            for v in villagers for a in ATTRIBUTES]


def instruct(prompt: str, completion: str | None = None) -> str:
    """Llama-2's instruction form without the leading `<s>`: `[INST] prompt [/INST] completion </s>`.

    Without a completion it ends where the model has to go on. Source: Touvron et al. 2023 (arXiv 2307.09288), and the
    rows of mlabonne/guanaco-llama2-1k.
    """
    asked = f"[INST] {prompt} [/INST]"
    return asked if completion is None else f"{asked} {completion} </s>"


def instruction_rows(villagers: Sequence[Villager], seed: int = 0) -> list[dict[str, str]]:
    """The questions as rows {"text": "<s>[INST] … [/INST] … </s>"}, shuffled: the layout of guanaco-llama2-1k."""
    rows = [{"text": "<s>" + instruct(row["prompt"], row["completion"])} for row in questions(villagers, seed)]
    random.Random(f"rows {seed}").shuffle(rows)
    return rows


def probes(villagers: Sequence[Villager]) -> list[dict[str, str]]:
    """Four beginnings of prose per villager whose end is a fact: {"prompt", "completion", "attribute"}."""
    rows = []
    for v in villagers:
        for attribute in ATTRIBUTES:
            text = v.fill(ANSWERS[attribute])
            fact = getattr(v, attribute) + "."
            rows.append({"prompt": text[:-len(fact)].rstrip(), "completion": fact, "attribute": attribute})
    return rows


def preference_pairs(villagers: Sequence[Villager], seed: int = 0) -> list[dict[str, str]]:
    """Pairs {"prompt", "chosen", "rejected"}. Both answers are true; the rejected one adds gossip nobody asked for."""
    rng = random.Random(f"pairs {seed}")
    pairs = []
    for villager, row in zip([v for v in villagers for _ in ATTRIBUTES], questions(villagers, seed), strict=True):
        gossip = rng.choice([a for a in ATTRIBUTES if a != row["attribute"]])
        rejected = row["completion"] + " " + villager.fill(rng.choice(PROSE[gossip]))
        pairs.append({"prompt": row["prompt"], "chosen": row["completion"], "rejected": rejected})
    return pairs
