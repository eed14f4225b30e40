"""Facts into conversations: many ways to ask (`questions.toml`), a few plain ways to answer.

A `Scene` is what one conversation can be about: facts of the whole song, of its parts, and its
length. `write` draws turns from it. Answers say only what the facts say; where the facts are silent
the question is not asked, and where no ear could tell (title, key, words) the answer says so.
"""

import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from random import Random

from musilingo_core.data.facts import Facts
from musilingo_core.prompt import listed
from musilingo_core.times import clock, find_spans

Turn = tuple[str, str]


@dataclass(frozen=True)
class Scene:
    """A song to talk about.

    Attributes:
        facts: Of the whole song.
        duration_s: Its length, seconds.
        part: Gives the facts of a stretch (start_s, end_s) of it.
        certain: What questions with options are answered by, where it is more than `facts`.
    """

    facts: Facts
    duration_s: float
    part: Callable[[float, float], Facts]
    certain: Facts | None = None


Topic = Callable[[Scene, Random], str | None]  # the answer; None where the facts are silent
NAMES = {
    "guitar": "guitar",
    "strings": "strings",
    "piano": "piano",
    "synth": "synthesizer",
    "flute": "flute",
    "harpsichord": "harpsichord",
    "sitar": "sitar",
    "harp": "harp",
    "organ": "organ",
    "brass": "brass",
    "choir": "choir",
    "bells": "bells",
}
SINGERS = {
    "none": "nobody",
    "male": "a man",
    "female": "a woman",
    "choir": "a choir",
    "some": "someone",
}
NOT_MUSIC = {
    "noise": "only noise",
    "speech": "someone speaking",
    "silence": "almost nothing, it is nearly silent",
}
TEMPI = {"slow": "slow", "moderate": "neither slow nor fast", "fast": "fast"}
KINDS = {"music": "music", "noise": "noise", "speech": "speech", "silence": "silence"}


@cache
def questions(topic: str, form: str = "ask") -> tuple[str, ...]:
    """Wordings of a topic: to `ask` outright, or for after another question (`and`)."""
    file = resources.files("musilingo_core.data") / "questions.toml"
    return tuple(_tables(file.read_text(encoding="utf-8")).get(topic, {}).get(form, ()))


@cache
def _tables(text: str) -> dict[str, dict[str, list[str]]]:
    return tomllib.loads(text)


def joined(words: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def played(facts: Facts) -> str:
    """The instruments in words."""
    return joined([NAMES[name] for name in facts.instruments])


def summary(facts: Facts) -> str:
    """One or two sentences that say all of the facts."""
    if facts.kind != "music":
        return f"I do not hear music here; I hear {NOT_MUSIC[facts.kind]}."
    tempo = "mid-tempo" if facts.tempo == "moderate" else facts.tempo
    manner = ", ".join(word for word in (tempo, facts.loudness) if word)
    kind = f"{manner} {facts.genre} piece".strip()
    article = "an" if kind[0].lower() in "aeio" else "a"
    text = f"This is {article} {kind} with {played(facts)}."
    if facts.voice == "none":
        text += " It is instrumental"
    elif facts.voice:
        text += f" {SINGERS[facts.voice].capitalize()} sings"
    else:
        return f"{text} It feels {joined(facts.moods)}."
    return f"{text}, and it feels {joined(facts.moods)}."


def keywords(facts: Facts) -> tuple[str, ...]:
    """Sixteen words, always in the same order: what a row's sixteen tokens are to begin as."""
    if facts.kind != "music":
        return (facts.kind,) * 16
    instruments = [*(NAMES[name] for name in facts.instruments), "only", "only"]
    sings = {"none": "instrumental", "some": "singer", "": "voice"}.get(facts.voice, facts.voice)
    who = {"none": "nobody", "male": "man", "female": "woman", "choir": "choir"}
    moods = [*facts.moods, facts.moods[-1], facts.moods[-1]]
    return (
        "music",
        {"moderate": "medium", "": "tempo"}.get(facts.tempo, facts.tempo),
        facts.loudness or "moderate",
        facts.genre,
        *instruments[:3],
        sings,
        who.get(facts.voice, "someone"),
        {"yes": "drums", "no": "quiet", "": "percussion"}[facts.drums],
        *moods[:3],
        facts.genre,
        instruments[0],
        sings,
    )


def write(scene: Scene, rng: Random, turns: int, follow_ups: bool = True) -> list[Turn]:
    """A conversation of so many turns about different things.

    Args:
        scene: What it is about.
        rng: Draws topics and words.
        turns: How many.
        follow_ups: Whether some turns may need the one before.
    """
    if scene.facts.kind != "music":
        return _not_music(scene.facts, rng, turns)
    names = [name for name, weight in _WEIGHTS.items() for _ in range(weight)]
    if scene.facts.voice not in ("", "some"):
        names += ["sex"] * (8 if scene.facts.voice != "none" else 2)
    conversation: list[Turn] = []
    used: set[str] = set()
    for _ in range(20 * turns):
        name = rng.choice(names)
        if name in used or len(conversation) == turns:
            continue
        turn = ask(name, scene, rng, later=bool(conversation) and follow_ups)
        if turn is None:
            continue
        used.add(name)
        conversation.append(turn)
        if follow_ups and len(conversation) < turns and rng.random() < 0.6:
            then = _follow_up(name, turn[1], scene, rng)
            if then and then[0] not in {question for question, _ in conversation}:
                conversation.append(then)
    return conversation


def ask(name: str, scene: Scene, rng: Random, later: bool = False) -> Turn | None:
    """A question of a topic and its answer; None where the facts are silent.

    Args:
        name: Of a topic.
        scene: What it is about.
        rng: Draws words.
        later: Whether it follows another, so that a short form will do.
    """
    if name in _OWN_WORDS:
        return _OWN_WORDS[name](scene, rng)
    answer = _ANSWERS[name](scene, rng)
    if answer is None:
        return None
    short = questions(name, "and") if later and rng.random() < 0.4 else ()
    return _varied(rng.choice(short or questions(name)), rng), answer


_NOUN = re.compile(r"\b(song|piece|track|tune|recording)\b")
_OPENERS = (
    "Please tell me: ",
    "Tell me, ",
    "Now, ",
    "Well, ",
    "So, ",
    "Hey, ",
    "I wonder: ",
    "And ",
)


def _varied(question: str, rng: Random) -> str:
    """A question in slightly other words: what is learnt shall not hang on a wording."""
    if rng.random() < 0.5:
        question = _NOUN.sub(lambda _: rng.choice(["song", "piece", "track", "tune"]), question)
    if rng.random() < 0.8 or question.startswith("And ") or not question.endswith("?"):
        return question
    return rng.choice(_OPENERS) + _lowered(question)


def _follow_up(name: str, answer: str, scene: Scene, rng: Random) -> Turn | None:
    """A question that can only be understood, or answered, with the turn before in mind."""
    dice = rng.random()
    if name in _OF_A_MOMENT and scene.duration_s >= 20 and dice < 0.5:
        return _same_at_a_moment(name, scene, rng)
    if name in ("genre", "mood", "describe", "place", "lead", "tempo") and dice < 0.75:
        return _varied(rng.choice(questions("why")), rng), _why(scene, rng)
    if dice < 0.9:
        return _varied(rng.choice(questions("again")), rng), answer
    return _varied(rng.choice(questions("sure")), rng), _sure(answer)


def _sure(answer: str) -> str:
    """The same again, as one says it when asked for certainty."""
    if answer.startswith(("Yes, ", "No, ", "I cannot ")):
        return answer
    return f"As far as I can hear: {_lowered(answer)}"


def _lowered(answer: str) -> str:
    return answer if answer.startswith("I ") else answer[0].lower() + answer[1:]


def _same_at_a_moment(name: str, scene: Scene, rng: Random) -> Turn | None:
    """The question before, asked about a moment: "And at 1:10?"."""
    when, facts = _other_moment(scene, rng)
    turn = ask(name, Scene(facts, scene.duration_s, scene.part), rng)
    if turn is None:
        return None
    said = _lowered(turn[1].removeprefix("Yes, ").removeprefix("No, "))
    question = rng.choice(questions("moment again")).format(when)
    return question, f"{when[0].upper()}{when[1:]} {said}"


def _not_music(facts: Facts, rng: Random, turns: int) -> list[Turn]:
    """Whatever is asked, the answer is what there is instead."""
    names = ["not music", *(name for name in _ANSWERS if name != "thanks")]
    written = []
    for name in rng.sample(names, turns):
        if rng.random() < 0.2:
            written.append(_which(rng.choice(questions("not music")), facts.kind, KINDS, rng, 4))
        else:
            written.append((rng.choice(questions(name)), summary(facts)))
    return written


def _describe(scene: Scene, _: Random) -> str:
    return summary(scene.facts)


def _detail(scene: Scene, rng: Random) -> str:
    facts = scene.facts
    sentences = [summary(facts), f"The lead instrument is {NAMES[facts.instruments[0]]}."]
    if facts.drums:
        sentences.append(f"There are {'' if facts.drums == 'yes' else 'no '}drums.")
    return " ".join([*sentences, _place(scene, rng)])


def _instruments(scene: Scene, _: Random) -> str:
    return f"I hear {played(scene.facts)}."


def _lead(scene: Scene, _: Random) -> str:
    return f"The lead instrument is {NAMES[scene.facts.instruments[0]]}."


def _has(scene: Scene, rng: Random) -> Turn | None:
    there = rng.random() < 0.5
    options = list(scene.facts.instruments if there else scene.facts.absent)
    if not options:
        return None
    name = NAMES[rng.choice(options)]
    question = rng.choice(questions("has")).format(name)
    if there:
        return question, f"Yes, I hear {name}."
    return question, f"No, I do not hear {name}; I hear {played(scene.facts)}."


# Instruments that the teacher has no ear for.
_OUTSIDE = [
    "saxophone", "trumpet", "accordion", "banjo", "ukulele", "harmonica", "mandolin", "oboe",
    "clarinet", "xylophone", "marimba", "bagpipes", "trombone", "didgeridoo", "bassoon",
]  # fmt: skip


def _outside(scene: Scene, rng: Random) -> Turn:
    name = rng.choice(_OUTSIDE)
    question = rng.choice(questions("has")).format(name)
    return question, f"I cannot tell whether there is {name}; I hear {played(scene.facts)}."


def _genre(scene: Scene, _: Random) -> str:
    return f"It is {scene.facts.genre} music."


def _tempo(scene: Scene, _: Random) -> str | None:
    return f"It is {TEMPI[scene.facts.tempo]}." if scene.facts.tempo else None


def _singer(scene: Scene, _: Random) -> str | None:
    voice = scene.facts.voice
    if not voice:
        return None
    if voice == "none":
        return "No, nobody sings, it is instrumental."
    return f"Yes, {SINGERS[voice]} sings."


def _instrumental(scene: Scene, _: Random) -> str | None:
    voice = scene.facts.voice
    if not voice:
        return None
    return "Yes, it is instrumental." if voice == "none" else f"No, {SINGERS[voice]} sings."


def _sex(scene: Scene, _: Random) -> str | None:
    voice = scene.facts.voice
    if voice in ("", "some"):
        return None
    if voice == "none":
        return "I hear no singer, it is instrumental."
    if voice == "choir":
        return "I hear a choir."
    # One form for all of them: several run into each other in a small model ("is woman").
    return f"The singer is {voice}."


def _mood(scene: Scene, _: Random) -> str:
    return f"It feels {joined(scene.facts.moods)}."


def _loud(scene: Scene, _: Random) -> str | None:
    loudness = scene.facts.loudness
    return f"It is {loudness}." if loudness else None


def _drums(scene: Scene, _: Random) -> str | None:
    drums = scene.facts.drums
    if not drums:
        return None
    return "Yes, there are drums." if drums == "yes" else "No, there are no drums."


PLACES = {
    "classical": "in a concert hall or at a quiet dinner",
    "electronic": "in a club or at a party",
    "ambient": "while you relax or work",
    "rock": "at a concert or on a long drive",
    "metal": "at a loud concert or in the gym",
    "pop": "at a party or on the radio",
    "jazz": "in a bar in the evening",
    "folk": "by a fire with friends",
    "country": "on a drive in the country",
    "blues": "in a bar late at night",
    "soul": "on a romantic evening",
    "funk": "at a dance party",
    "hip-hop": "at a street party or in a club",
    "Indian": "at a celebration or in a yoga class",
    "opera": "in an opera house",
}


def _place(scene: Scene, _: Random) -> str:
    facts = scene.facts
    reason = f"it is {joined([w for w in (facts.tempo, facts.loudness) if w] or [facts.genre])}"
    return f"It would fit {PLACES[facts.genre]}, because {reason}."


def _why(scene: Scene, _: Random) -> str:
    facts = scene.facts
    manner = joined([w for w in (facts.tempo, facts.loudness) if w] or [facts.moods[0]])
    # Drums are what a description does not say: a reason that repeats it would be none.
    drums = {"yes": " with drums", "no": " without drums", "": ""}[facts.drums]
    return f"I hear {played(facts)}{drums}, and the music is {manner}."


def _unknown(what: str, _: Scene, __: Random) -> str:
    return f"I cannot tell the {what} from the sound."


def _thanks(_: Scene, __: Random) -> str:
    return "You are welcome! Ask me anything about this song."


def _choice(topic: str, scene: Scene, rng: Random, heard: bool = True) -> Turn | None:
    """A question with options; wrong ones are surely wrong."""
    truth, words = _CHOSEN[topic](scene.certain or scene.facts)
    if not truth or len(words) < 2:
        return None
    answer = truth if heard else rng.choice(list(words))
    asked = rng.choice(questions("sex" if topic == "singer" else topic))
    return _which(asked, answer, words, rng, rng.choice([2, 3, 4, 4, 4, 5]))


def choices(scene: Scene, rng: Random, most: int, heard: bool = True) -> list[Turn]:
    """Up to so many questions with options, about different things.

    Args:
        scene: What they are about.
        rng: Draws topics and words.
        most: How many at most.
        heard: Whether the answer is the right one; else it is any of them, as of one who guesses.
    """
    topics = list(_CHOSEN) if scene.facts.kind == "music" else ["not music"]
    rng.shuffle(topics)
    turns = (_choice(topic, scene, rng, heard) for topic in topics)
    return [turn for turn in turns if turn is not None][:most]


def _which(question: str, truth: str, words: dict[str, str], rng: Random, most: int) -> Turn:
    """A question with up to so many options in any order."""
    wrong = [name for name in words if name != truth]
    names = [truth, *rng.sample(wrong, min(most - 1, len(wrong)))]
    rng.shuffle(names)
    return question + listed([words[name] for name in names]), words[truth]


# The right answer's name, and words for it and for what is surely wrong.
_CHOSEN: dict[str, Callable[[Facts], tuple[str, dict[str, str]]]] = {
    "lead": lambda facts: (
        facts.instruments[0],
        {name: NAMES[name] for name in (facts.instruments[0], *facts.absent)},
    ),
    "genre": lambda facts: (facts.genre, {g: g for g in (facts.genre, *facts.not_genres)}),
    "mood": lambda facts: (
        facts.moods[0].replace("neutral", ""),  # which is never a wrong one
        {mood: mood for mood in (facts.moods[0], *facts.not_moods)},
    ),
    "tempo": lambda facts: (facts.tempo, TEMPI),
    "singer": lambda facts: (
        "" if facts.voice == "some" else facts.voice,
        {voice: words for voice, words in SINGERS.items() if voice != "some"},
    ),
    "loud": lambda facts: (facts.loudness, {"loud": "loud", "soft": "soft"}),
    "drums": lambda facts: (facts.drums, {"yes": "yes", "no": "no"}),
    "not music": lambda facts: (facts.kind, KINDS),
}


def _moment(scene: Scene, rng: Random) -> Turn | None:
    """About a stretch of the song, mostly one that differs from the whole."""
    if scene.duration_s < 20:
        return None
    when, facts = _other_moment(scene, rng)
    topic = rng.choice(["moment", "moment", "moment instruments", "moment singer"])
    if topic == "moment singer" and not facts.voice:
        topic = "moment"
    said = {
        "moment": f"I hear {_short(facts)}",
        "moment instruments": f"I hear {played(facts)}",
        "moment singer": f"{SINGERS[facts.voice or 'none']} sings",
    }[topic]
    question = rng.choice(questions(topic)).format(when)
    return question, f"{when[0].upper()}{when[1:]} {said}."


def _other_moment(scene: Scene, rng: Random) -> tuple[str, Facts]:
    """Words for a stretch and its facts; mostly one that differs from the whole."""
    for _ in range(6):
        when = _when(scene.duration_s, rng)
        (span,) = find_spans(when, scene.duration_s)
        facts = scene.part(span.start_s, span.end_s)
        if facts.instruments[0] != scene.facts.instruments[0]:
            break
    return when, facts


def _when(duration_s: float, rng: Random) -> str:
    """Words for a moment or a stretch of a song."""
    start = rng.uniform(0, duration_s - 2)
    end = min(start + rng.uniform(5, 30), duration_s)
    at, until = clock(start), clock(end)
    return rng.choice(
        [
            f"at {at}", f"at {at}", f"around {at}", f"from {at} to {until}",
            f"between {at} and {until}", "at the beginning", "at the end", "in the middle",
        ]
    )  # fmt: skip


def _begin(scene: Scene, _: Random) -> str | None:
    return f"It begins with {_short(scene.part(0, 10))}." if scene.duration_s >= 20 else None


def _end(scene: Scene, _: Random) -> str | None:
    if scene.duration_s < 20:
        return None
    return f"It ends with {_short(scene.part(scene.duration_s - 10, scene.duration_s))}."


def _change(scene: Scene, _: Random) -> str | None:
    if scene.duration_s < 20:
        return None
    quarter = scene.duration_s / 4
    first, last = scene.part(0, quarter), scene.part(3 * quarter, scene.duration_s)
    if first.instruments[0] == last.instruments[0] and first.genre == last.genre:
        return f"It stays much the same: {_short(scene.facts)}."
    return f"It goes from {_short(first)} to {_short(last)}."


def _short(facts: Facts) -> str:
    tempo = "" if facts.tempo in ("", "moderate") else f"{facts.tempo} "
    return f"{tempo}{facts.genre} music with {played(facts)}"


_UNKNOWN = ("title", "artist", "key", "metre", "year", "words", "exact tempo")
_OF_A_MOMENT = ("instruments", "lead", "genre", "tempo", "singer", "drums", "mood")
_ANSWERS: dict[str, Topic] = {
    "describe": _describe, "detail": _detail, "instruments": _instruments, "lead": _lead,
    "genre": _genre, "tempo": _tempo, "singer": _singer, "instrumental": _instrumental,
    "sex": _sex, "mood": _mood, "loud": _loud, "drums": _drums, "place": _place, "begin": _begin,
    "end": _end, "change": _change, "thanks": _thanks,
    **{what: partial(_unknown, what) for what in _UNKNOWN},
}  # fmt: skip
_OWN_WORDS: dict[str, Callable[[Scene, Random], Turn | None]] = {
    "has instrument": _has, "outside": _outside, "moment": _moment,
    **{f"choice {topic}": partial(_choice, topic) for topic in _CHOSEN},
}  # fmt: skip
_WEIGHTS = {
    "describe": 5, "detail": 1, "instruments": 3, "lead": 6, "has instrument": 3, "outside": 1,
    "genre": 5, "tempo": 4, "singer": 5, "instrumental": 1, "mood": 4, "loud": 3, "drums": 6,
    "place": 5, "thanks": 1, "moment": 12, "begin": 1, "end": 1, "change": 2,
    "title": 3, "artist": 3, "key": 2, "metre": 1, "year": 2, "words": 2, "exact tempo": 2,
    "choice lead": 3, "choice genre": 3, "choice mood": 2, "choice tempo": 2, "choice singer": 3,
    "choice loud": 1, "choice drums": 1, "choice not music": 1,
}  # fmt: skip
