"""Facts into conversations: many ways to ask, a few plain ways to answer.

A `Scene` is what one conversation can be about: facts of the whole song, of its parts, and its
length. `write` draws turns from it. Answers say only what the facts say; where the facts are silent
the question is not asked, and where no ear could tell (title, key, words) the answer says so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from musilingo_core.data.facts import Facts
from musilingo_core.times import clock, find_spans

Turn = tuple[str, str]


@dataclass(frozen=True)
class Scene:
    """A song to talk about.

    Attributes:
        facts: Of the whole song.
        duration_s: Its length, seconds.
        part: Gives the facts of a stretch (start_s, end_s) of it.
    """

    facts: Facts
    duration_s: float
    part: Callable[[float, float], Facts]


Topic = Callable[[Scene, Random], Turn | None]
SUNG_WEIGHT = 9  # how many times oftener a singer's sex is asked about where there is a singer
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
SINGERS = {"none": "nobody", "male": "a man", "female": "a woman", "some": "someone"}
NOT_MUSIC = {
    "noise": "only noise",
    "speech": "someone speaking",
    "silence": "almost nothing, it is nearly silent",
}


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
    topics = [topic for topic, weight in _TOPICS for _ in range(weight)]
    if scene.facts.voice in {"male", "female"}:  # elsewhere there is nothing to tell apart
        topics += _OF_A_SINGER * SUNG_WEIGHT
    if not follow_ups:
        topics = [topic for topic in topics if topic is not _thanks]
    conversation: list[Turn] = []
    used: set[Topic] = set()
    for _ in range(20 * turns):
        topic = rng.choice(topics)
        if topic in used or len(conversation) == turns:
            continue
        turn = topic(scene, rng)
        if turn is None:
            continue
        used.add(topic)
        conversation.append(turn)
        if follow_ups and len(conversation) < turns and rng.random() < 0.5:
            then = _follow_up(topic, turn[1], scene, rng)
            if then and then[0] not in {question for question, _ in conversation}:
                conversation.append(then)
    return conversation


def write_singer(scene: Scene, rng: Random) -> list[Turn]:
    """Single questions about who sings, two of them about the sex; seldom a description."""
    topics = [*rng.sample(_OF_A_SINGER, 2), _singer, *([_describe] if rng.random() < 0.2 else [])]
    return [turn for topic in topics if (turn := topic(scene, rng))]


def _follow_up(topic: Topic, answer: str, scene: Scene, rng: Random) -> Turn | None:
    """A question that can only be understood, or answered, with the turn before in mind."""
    dice = rng.random()
    if topic in _OF_A_MOMENT and scene.duration_s >= 20 and dice < 0.7:
        return _same_at_a_moment(topic, scene, rng)
    if topic in (_genre, _mood, _describe) and dice < 0.85:
        return _why(scene, rng)
    return rng.choice(_AGAIN), answer


def _same_at_a_moment(topic: Topic, scene: Scene, rng: Random) -> Turn | None:
    """The question before, asked about a moment: "And at 1:10?"."""
    when, facts = _other_moment(scene, rng)
    turn = topic(Scene(facts, scene.duration_s, scene.part), rng)
    if turn is None:
        return None
    said = turn[1].removeprefix("Yes, ").removeprefix("No, ")
    said = said if said.startswith("I ") else said[0].lower() + said[1:]
    question = rng.choice([f"And {when}?", f"And {when}?", f"What about {when}?"])
    return question, f"{when[0].upper()}{when[1:]} {said}"


def _not_music(facts: Facts, rng: Random, turns: int) -> list[Turn]:
    topics = [
        _DESCRIBE, _DETAIL, _GENRE, _INSTRUMENTS, _LEAD, _TEMPO, _MOOD, _SINGER, _SEX, _LOUD,
        _DRUMS, _PLACE, *_UNKNOWN.values(), ["Is this music?", "What is this?", "What happens?"],
    ]  # fmt: skip
    answer = summary(facts)
    return [(rng.choice(questions), answer) for questions in rng.sample(topics, turns)]


_DESCRIBE = [
    "Describe this music.", "What do you hear?", "Tell me about this song.", "Describe the song.",
    "Can you describe what you hear?", "What is this piece like?", "Give me a short description.",
    "Summarize this track.", "What kind of music is this?", "Describe it.", "What is this?",
]  # fmt: skip
_DETAIL = [
    "Describe this track in detail.", "Tell me everything you hear.", "Give me a long description.",
    "Write a paragraph about this music.", "Describe the song in detail.",
]  # fmt: skip
_INSTRUMENTS = [
    "What instruments do you hear?", "Which instruments are played?", "What instruments are used?",
    "Name the instruments.", "What is being played?", "List the instruments in this song.",
]  # fmt: skip
_LEAD = [
    "What is the lead instrument?", "Which instrument stands out?", "What is the main instrument?",
    "Which instrument leads?", "What instrument plays the melody?",
]  # fmt: skip
_GENRE = [
    "What genre is this?", "What style of music is it?", "Which genre does it belong to?",
    "What is the genre of this song?", "How would you classify this music?",
]  # fmt: skip
_TEMPO = [
    "Is it slow or fast?", "How fast is it?", "What is the tempo?", "Is the tempo slow or fast?",
    "How would you describe the speed?", "Slow or fast?",
]  # fmt: skip
_SINGER = [
    "Is there a singer?", "Does anyone sing?", "Are there vocals?", "Is there singing in it?",
    "Do you hear a voice?", "Is it instrumental?", "Is anybody singing?", "Is there a vocalist?",
    "Is someone singing?", "Do you hear singing?",
]  # fmt: skip
_SEX = [
    "Is the singer male or female?", "Is the singer female or male?", "Who is singing?",
    "Is it a man or a woman singing?", "What kind of voice is it?",
]  # fmt: skip
_MOOD = [
    "What is the mood?", "How does it feel?", "What emotion does it convey?",
    "What feeling does this music give?", "Describe the mood of the song.",
]  # fmt: skip
_LOUD = ["Is it loud or soft?", "How loud is it?", "Is the music loud or quiet?"]
_DRUMS = ["Are there drums?", "And the drums?", "Do you hear drums?", "Is there a beat?"]
_PLACE = [
    "Where could I play this?", "What occasion does it suit?", "When would you listen to this?",
    "What scene would it fit?",
]  # fmt: skip
_WHY = ["What makes you say that?", "Why do you think so?", "How can you tell?"]
_AGAIN = ["Can you say that again?", "Please repeat that.", "Are you sure?", "What was that?"]
_UNKNOWN = {
    "title": [
        "What is the title?", "What song is this?", "What is it called?", "Name this song.",
        "What is the name of this piece?",
    ],
    "artist": [
        "Who is the artist?", "Who made this?", "Who composed this?", "Who plays this?",
        "Who wrote this song?", "What band is this?",
    ],
    "key": ["What key is it in?", "Which key is this song in?", "Is it major or minor?"],
    "year": ["When was it recorded?", "What year is it from?", "How old is this recording?"],
    "words": ["What are the lyrics?", "What do they sing about?", "What language is it in?"],
    "exact tempo": ["What is the BPM?", "How many beats per minute?"],
}  # fmt: skip
# Instruments that the teacher has no ear for.
_OUTSIDE = [
    "saxophone", "trumpet", "accordion", "banjo", "ukulele", "harmonica", "mandolin", "oboe",
    "clarinet", "xylophone", "marimba", "bagpipes", "trombone", "didgeridoo", "bassoon",
]  # fmt: skip
_THANKS = ["Thank you!", "Thanks.", "Great, thanks a lot."]


def _describe(scene: Scene, rng: Random) -> Turn:
    return rng.choice(_DESCRIBE), summary(scene.facts)


def _detail(scene: Scene, rng: Random) -> Turn:
    facts = scene.facts
    sentences = [summary(facts), f"The lead instrument is {NAMES[facts.instruments[0]]}."]
    if facts.drums:
        sentences.append(f"There are {'' if facts.drums == 'yes' else 'no '}drums.")
    sentences.append(_place(scene, rng)[1])
    return rng.choice(_DETAIL), " ".join(sentences)


def _instruments(scene: Scene, rng: Random) -> Turn:
    return rng.choice(_INSTRUMENTS), f"I hear {played(scene.facts)}."


def _lead(scene: Scene, rng: Random) -> Turn:
    return rng.choice(_LEAD), f"The lead instrument is {NAMES[scene.facts.instruments[0]]}."


def _has_instrument(scene: Scene, rng: Random) -> Turn | None:
    there = rng.random() < 0.5
    options = [n for n in (scene.facts.instruments if there else scene.facts.absent)]
    if not options:
        return None
    name = NAMES[rng.choice(options)]
    question = _is_there(name, rng)
    if there:
        return question, f"Yes, I hear {name}."
    return question, f"No, I do not hear {name}; I hear {played(scene.facts)}."


def _outside(scene: Scene, rng: Random) -> Turn:
    name = rng.choice(_OUTSIDE)
    return _is_there(
        name, rng
    ), f"I cannot tell whether there is {name}; I hear {played(scene.facts)}."


def _is_there(name: str, rng: Random) -> str:
    return rng.choice([f"Is there {name} in it?", f"Do you hear {name}?", f"Can you hear {name}?"])


def _genre(scene: Scene, rng: Random) -> Turn:
    return rng.choice(_GENRE), f"It is {scene.facts.genre} music."


def _tempo(scene: Scene, rng: Random) -> Turn | None:
    tempo = scene.facts.tempo
    if not tempo:
        return None
    answer = "It is neither slow nor fast." if tempo == "moderate" else f"It is {tempo}."
    return rng.choice(_TEMPO), answer


def _singer(scene: Scene, rng: Random) -> Turn | None:
    voice, question = scene.facts.voice, rng.choice(_SINGER)
    if not voice:
        return None
    instrumental = question == "Is it instrumental?"
    if voice == "none":
        answer = "it is instrumental." if instrumental else "nobody sings, it is instrumental."
        return question, ("Yes, " if instrumental else "No, ") + answer
    return question, ("No, " if instrumental else "Yes, ") + f"{SINGERS[voice]} sings."


def _sex(question: str, scene: Scene, _: Random) -> Turn | None:
    voice = scene.facts.voice
    if voice in ("", "some"):
        return None
    if voice == "none":
        return question, "I hear no singer, it is instrumental."
    # One form for all of them: several run into each other in a small model ("is woman").
    return question, f"The singer is {voice}."


def _mood(scene: Scene, rng: Random) -> Turn:
    return rng.choice(_MOOD), f"It feels {joined(scene.facts.moods)}."


def _loudness(scene: Scene, rng: Random) -> Turn | None:
    loudness = scene.facts.loudness
    return (rng.choice(_LOUD), f"It is {loudness}.") if loudness else None


def _drums(scene: Scene, rng: Random) -> Turn | None:
    drums = scene.facts.drums
    if not drums:
        return None
    answer = "Yes, there are drums." if drums == "yes" else "No, there are no drums."
    return rng.choice(_DRUMS), answer


_PLACES = {
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


def _place(scene: Scene, rng: Random) -> Turn:
    facts = scene.facts
    reason = f"it is {joined([w for w in (facts.tempo, facts.loudness) if w] or [facts.genre])}"
    return rng.choice(_PLACE), f"It would fit {_PLACES[facts.genre]}, because {reason}."


def _why(scene: Scene, rng: Random) -> Turn:
    facts = scene.facts
    manner = joined([w for w in (facts.tempo, facts.loudness) if w] or [facts.moods[0]])
    return rng.choice(_WHY), f"I hear {played(facts)}, and the music is {manner}."


def _unknown(what: str, _: Scene, rng: Random) -> Turn:
    return rng.choice(_UNKNOWN[what]), f"I cannot tell the {what} from the sound."


def _thanks(_: Scene, rng: Random) -> Turn:
    return rng.choice(_THANKS), "You are welcome! Ask me anything about this song."


def _moment(scene: Scene, rng: Random) -> Turn | None:
    """About a stretch of the song, mostly one that differs from the whole."""
    if scene.duration_s < 20:
        return None
    when, facts = _other_moment(scene, rng)
    turns = [
        (f"What do you hear {when}?", f"I hear {_short(facts)}"),
        (f"What happens {when}?", f"I hear {_short(facts)}"),
        (f"Describe the music {when}.", f"I hear {_short(facts)}"),
        (f"Which instruments play {when}?", f"I hear {played(facts)}"),
    ]
    if facts.voice:
        turns.append((f"Does anyone sing {when}?", f"{SINGERS[facts.voice]} sings"))
    question, said = rng.choice(turns)
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


def _beginning(scene: Scene, rng: Random) -> Turn | None:
    if scene.duration_s < 20:
        return None
    return "How does it begin?", f"It begins with {_short(scene.part(0, 10))}."


def _ending(scene: Scene, rng: Random) -> Turn | None:
    if scene.duration_s < 20:
        return None
    last = scene.part(scene.duration_s - 10, scene.duration_s)
    return "How does it end?", f"It ends with {_short(last)}."


def _change(scene: Scene, rng: Random) -> Turn | None:
    if scene.duration_s < 20:
        return None
    quarter = scene.duration_s / 4
    first, last = scene.part(0, quarter), scene.part(3 * quarter, scene.duration_s)
    question = rng.choice(
        ["Does the music change?", "How does it develop?", "Does it change over time?"]
    )
    if first.instruments[0] == last.instruments[0] and first.genre == last.genre:
        return question, f"It stays much the same: {_short(scene.facts)}."
    return question, f"It goes from {_short(first)} to {_short(last)}."


def _short(facts: Facts) -> str:
    tempo = "" if facts.tempo in ("", "moderate") else f"{facts.tempo} "
    return f"{tempo}{facts.genre} music with {played(facts)}"


_OF_A_SINGER: list[Topic] = [partial(_sex, question) for question in _SEX]
_OF_A_MOMENT = (_instruments, _lead, _genre, _tempo, _singer, _drums, _mood)
_TOPICS: list[tuple[Topic, int]] = [
    (_describe, 5), (_detail, 1), (_instruments, 3), (_lead, 7), (_has_instrument, 3),
    (_outside, 1), (_genre, 5), (_tempo, 4), (_singer, 6), (_mood, 3), (_loudness, 1),
    (_drums, 3), (_place, 1), (_thanks, 1), (_moment, 8), (_beginning, 1), (_ending, 1),
    (_change, 2), *((topic, 1) for topic in _OF_A_SINGER),
    *((partial(_unknown, what), 5 if what in ("title", "artist") else 2) for what in _UNKNOWN),
]  # fmt: skip
