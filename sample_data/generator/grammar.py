"""Parallel sentences: one meaning, said in five languages with each one's own order, agreement and script.

`en`: Yesterday the nurse bought three red books at the market together with the cook.
`ar`: verb first; verb, demonstrative and adjective agree, numerals 3-10 take the opposite gender.
`zh`: time, company, place before the verb; measure words; written without spaces.
`ru`: past tense, adjective and demonstrative agree; numerals govern the genitive.
`tr`: verb last; locative, instrumental, and an accusative only on a definite object.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from . import lexicon as lx

Sentence = dict[str, str]
Weights = npt.NDArray[np.float64]

ARABIC_DEMONSTRATIVES = {("this", "m"): "هذا", ("this", "f"): "هذه", ("that", "m"): "ذلك", ("that", "f"): "تلك"}
RUSSIAN_DEMONSTRATIVES = {
    ("this", "m"): "этот", ("this", "f"): "эту", ("this", "n"): "это",
    ("that", "m"): "тот", ("that", "f"): "ту", ("that", "n"): "то",
}  # fmt: skip


@dataclass(frozen=True)
class Meaning:
    """What a sentence says; numbers index the lists of `lexicon`, None leaves the part out."""

    person: int
    action: int
    thing: int
    determiner: str  # "a", "this", "that" or "count"
    numeral: int | None
    quality: int | None
    place: int | None
    time: int | None
    companion: int | None
    time_first: bool


def parallel_sentences(count: int, seed: int) -> list[Sentence]:
    """`count` sentences, all different in every language."""
    rng = np.random.default_rng(seed)
    habits = Habits(rng)
    seen: dict[str, set[str]] = {language: set() for language in lx.LANGUAGES}
    sentences: list[Sentence] = []
    while len(sentences) < count:
        sentence = compose(habits.meaning(rng))
        if any(text in seen[language] for language, text in sentence.items()):
            continue
        for language, text in sentence.items():
            seen[language].add(text)
        sentences.append(sentence)
    return sentences


class Habits:
    """Who does what, where and when: drawn once, so that words predict one another as in real text."""

    def __init__(self, rng: np.random.Generator) -> None:
        people = len(lx.PEOPLE)
        self.actions = _preferences(rng, people, len(lx.ACTIONS))
        self.things = _preferences(rng, people, len(lx.THINGS))
        self.places = _preferences(rng, people, len(lx.PLACES))
        self.companions = _preferences(rng, people, people)
        np.fill_diagonal(self.companions, 0)
        self.times = _preferences(rng, len(lx.PLACES), len(lx.TIMES))
        self.qualities = _preferences(rng, len(lx.THINGS), len(lx.QUALITIES))

    def meaning(self, rng: np.random.Generator) -> Meaning:
        """One thing to say; each optional part is left out in some of the sentences."""
        person = int(rng.integers(len(lx.PEOPLE)))
        thing = _draw(rng, self.things[person])
        place = _draw(rng, self.places[person])
        determiner = str(rng.choice(["a", "this", "that", "count"], p=[0.3, 0.15, 0.15, 0.4]))
        numeral, quality = int(rng.integers(len(lx.NUMERALS))), _draw(rng, self.qualities[thing])
        time, companion = _draw(rng, self.times[place]), _draw(rng, self.companions[person])
        kept = rng.random(4) < (0.8, 0.8, 0.75, 0.3)
        return Meaning(
            person=person,
            action=_draw(rng, self.actions[person]),
            thing=thing,
            determiner=determiner,
            numeral=numeral if determiner == "count" else None,
            quality=quality if kept[0] else None,
            place=place if kept[1] else None,
            time=time if kept[2] else None,
            companion=companion if kept[3] else None,
            time_first=bool(rng.random() < 0.4),
        )


def _preferences(rng: np.random.Generator, rows: int, columns: int) -> Weights:
    return rng.choice([1.0, 8.0], size=(rows, columns), p=[0.75, 0.25])


def _draw(rng: np.random.Generator, weights: Weights) -> int:
    return int(rng.choice(len(weights), p=weights / weights.sum()))


def compose(meaning: Meaning) -> Sentence:
    """The sentence in every language, capitalised and with its full stop."""
    texts = {"en": english(meaning), "ar": arabic(meaning), "ru": russian(meaning), "tr": turkish(meaning)}
    spaced = {language: text[0].upper() + text[1:] + "." for language, text in texts.items()}
    return {language: spaced.get(language) or chinese(meaning) + "。" for language in lx.LANGUAGES}


def english(meaning: Meaning) -> str:
    """The nurse bought three red books at the market together with the cook yesterday"""
    thing, quality = lx.THINGS[meaning.thing], _quality(meaning).en
    if meaning.numeral is not None:
        what = _words(lx.NUMERALS[meaning.numeral].en, quality, thing.en_plural)
    else:
        described = _words(quality, thing.en)
        article = "an" if described[0] in "aeiou" else "a"
        what = _words(article if meaning.determiner == "a" else meaning.determiner, described)
    company = "" if meaning.companion is None else "together with " + lx.PEOPLE[meaning.companion].en
    clause = (lx.PEOPLE[meaning.person].en, lx.ACTIONS[meaning.action].en, what, _place(meaning).en, company)
    return _with_time(meaning, _time(meaning).en, *clause)


def arabic(meaning: Meaning) -> str:
    """bought the-nurse three books red at-the-market with the-cook yesterday"""
    person, action = lx.PEOPLE[meaning.person], lx.ACTIONS[meaning.action]
    company = "" if meaning.companion is None else "مع " + lx.PEOPLE[meaning.companion].ar
    verb = action.ar_f if person.feminine else action.ar_m
    return _with_time(meaning, _time(meaning).ar, verb, person.ar, _arabic_object(meaning), _place(meaning).ar, company)


def _arabic_object(meaning: Meaning) -> str:
    thing, quality = lx.THINGS[meaning.thing], _quality(meaning)
    feminine = thing.ar_gender == "f"
    if meaning.numeral is not None:
        numeral = lx.NUMERALS[meaning.numeral]
        # Plurals of things take the feminine singular adjective.
        return _words(numeral.ar_with_f if feminine else numeral.ar_with_m, thing.ar_plural, quality.ar_f)
    if meaning.determiner == "a":
        return _words(thing.ar_accusative, quality.ar_f if feminine else quality.ar_m_accusative)
    demonstrative = ARABIC_DEMONSTRATIVES[meaning.determiner, thing.ar_gender]
    adjective = quality.ar_f if feminine else quality.ar_m
    return _words(demonstrative, "ال" + thing.ar, adjective and "ال" + adjective)


def chinese(meaning: Meaning) -> str:
    """nurse yesterday with cook together at-market bought three-volumes red book"""
    thing, person = lx.THINGS[meaning.thing], lx.PEOPLE[meaning.person].zh
    count = {"a": "一", "this": "这", "that": "那"}.get(meaning.determiner, "")
    if meaning.numeral is not None:
        count = lx.NUMERALS[meaning.numeral].zh
    time = _time(meaning).zh
    opening = time + person if meaning.time_first else person + time
    company = "" if meaning.companion is None else f"和{lx.PEOPLE[meaning.companion].zh}一起"
    what = count + thing.zh_measure + _quality(meaning).zh + thing.zh
    return opening + company + _place(meaning).zh + lx.ACTIONS[meaning.action].zh + what


def russian(meaning: Meaning) -> str:
    """yesterday nurse together with cook at market bought three red books"""
    person, action = lx.PEOPLE[meaning.person], lx.ACTIONS[meaning.action]
    company = "" if meaning.companion is None else "вместе " + lx.PEOPLE[meaning.companion].ru_with
    verb = action.ru_f if person.feminine else action.ru_m
    time = _time(meaning).ru
    opening = (time, person.ru) if meaning.time_first else (person.ru, time)
    return _words(*opening, company, _place(meaning).ru, verb, _russian_object(meaning))


def _russian_object(meaning: Meaning) -> str:
    thing, quality = lx.THINGS[meaning.thing], _quality(meaning)
    if meaning.numeral is not None:
        numeral = lx.NUMERALS[meaning.numeral]
        # After 3 and 4 the adjective is nominative plural with feminine nouns, genitive plural with the others.
        nominative = numeral.ru_few and thing.ru_gender == "f"
        noun = thing.ru_few if numeral.ru_few else thing.ru_many
        return _words(numeral.ru, quality.ru_plural if nominative else quality.ru_genitive, noun)
    adjective = {"m": quality.ru_m, "f": quality.ru_f, "n": quality.ru_n}[thing.ru_gender]
    demonstrative = RUSSIAN_DEMONSTRATIVES.get((meaning.determiner, thing.ru_gender), "")
    return _words(demonstrative, adjective, thing.ru)


def turkish(meaning: Meaning) -> str:
    """nurse yesterday at-market with-cook together three red book bought"""
    person, thing, quality = lx.PEOPLE[meaning.person].tr, lx.THINGS[meaning.thing], _quality(meaning).tr
    if meaning.numeral is not None:
        what = _words(lx.NUMERALS[meaning.numeral].tr, quality, thing.tr)
    elif meaning.determiner == "a":
        what = _words(quality, "bir", thing.tr)
    else:
        what = _words("bu" if meaning.determiner == "this" else "o", quality, thing.tr_accusative)
    company = "" if meaning.companion is None else lx.PEOPLE[meaning.companion].tr_with + " birlikte"
    time = _time(meaning).tr
    opening = (time, person) if meaning.time_first else (person, time)
    return _words(*opening, _place(meaning).tr, company, what, lx.ACTIONS[meaning.action].tr)


def _quality(meaning: Meaning) -> lx.Quality:
    return lx.Quality(*[""] * len(lx.Quality._fields)) if meaning.quality is None else lx.QUALITIES[meaning.quality]


def _place(meaning: Meaning) -> lx.Phrase:
    return lx.Phrase(*[""] * len(lx.Phrase._fields)) if meaning.place is None else lx.PLACES[meaning.place]


def _time(meaning: Meaning) -> lx.Phrase:
    return lx.Phrase(*[""] * len(lx.Phrase._fields)) if meaning.time is None else lx.TIMES[meaning.time]


def _with_time(meaning: Meaning, time: str, *clause: str) -> str:
    return _words(time, *clause) if meaning.time_first else _words(*clause, time)


def _words(*parts: str) -> str:
    return " ".join(part for part in parts if part)
