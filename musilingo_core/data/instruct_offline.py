"""MusicInstruct made again without any language model, from MusicCaps' aspects and captions.

Short questions ask for tempo, mood, instruments, voices and genre where the aspects know the
answer; long ones for listening, analysis and emotion, and are answered with sentences of the
caption. Drawn by YouTube id, so the same on every machine. Plainer than GPT-4's, but it invents
nothing.
"""

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

from musilingo_core.data import aspects
from musilingo_core.data.aspects import Finding
from musilingo_core.data.dialogues import joined
from musilingo_core.data.music_instruct import KINDS, Pair, write_music_instruct
from musilingo_core.data.musiccaps import MusicCapsRow, read_musiccaps
from musilingo_core.data.published import Report, write_skipped

# Questions and answers are drawn apart; an answer fits every question of its topic.
QUESTIONS = {
    "tempo": (
        "What is the tempo of this music?",
        "How fast is this piece?",
        "How would you describe the tempo?",
        "Is this music slow or fast?",
    ),
    "mood": (
        "What is the mood of this music?",
        "What mood does this piece have?",
        "How would you describe the mood?",
        "Which words describe the mood here?",
    ),
    "instruments": (
        "Which instruments can you hear?",
        "What instruments are played in this piece?",
        "What is the instrumentation?",
        "Which instruments are used in this music?",
    ),
    "voices": (
        "What voices can you hear?",
        "Are there any vocals in this music?",
        "Is there a voice in this piece, and if so, whose?",
        "How would you describe the vocals, if there are any?",
    ),
    "genre": (
        "What genre is this music?",
        "What style of music is this?",
        "Which genre does this piece belong to?",
        "How would you classify this music?",
    ),
    "listening": (
        "What do you hear in this music?",
        "Can you describe this piece in detail?",
        "What would you tell somebody who cannot hear this clip?",
        "How would you describe what happens in this clip?",
    ),
    "analysis": (
        "Can you analyse how this music is made?",
        "What are the musical elements of this piece?",
        "How is this music put together?",
        "What stands out musically in this clip?",
    ),
    "emotion": (
        "What emotion does this music convey?",
        "How does this music feel?",
        "What atmosphere does this piece create?",
        "What feelings might this music evoke in a listener?",
    ),
}
SHORT = ("tempo", "mood", "instruments", "voices", "genre")


def write_offline(
    table: str | Path,
    output: str | Path,
    kinds: Sequence[str] = KINDS,
    max_rows: int | None = None,
) -> Report:
    """Makes MusicInstruct again, in the published form, and `skipped.jsonl` beside it.

    Args:
        table: `musiccaps-public.csv`.
        output: Folder.
        kinds: `short`, `long` or both.
        max_rows: Of the table, from the first; all by default.

    Raises:
        ManifestError: The table is damaged.
    """
    start = time.monotonic()
    rows = read_musiccaps(table)[:max_rows]
    pairs, skipped = [], []
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for topic, finding in topics(row).items():
            kind = "short" if topic in SHORT else "long"
            if kind not in kinds:
                continue
            if finding.words:
                counts[f"{kind} pairs"][topic] += 1
                pairs.append(make_pair(row, kind, topic, finding.words))
            else:
                counts[f"no {topic}"][finding.reason] += 1
                skipped.append({"id": row.ytid, "topic": topic, "reason": finding.reason})
    write_music_instruct(pairs, output)
    write_skipped(skipped, output)
    facts = {"rows": len(rows), "seconds": round(time.monotonic() - start, 1)}
    return Report("MusicInstruct, made offline", counts, facts)


def topics(row: MusicCapsRow) -> dict[str, Finding]:
    """What is known of each topic about a clip; a long topic's words are sentences."""
    sentences = split_sentences(row.caption)
    return {
        "tempo": aspects.find_tempo(row.aspects, row.caption),
        "mood": aspects.find_moods(row.aspects),
        "instruments": aspects.find_instruments(row.aspects),
        "voices": aspects.find_voices(row.aspects, row.caption),
        "genre": aspects.find_genres(row.aspects),
        "listening": _chosen(sentences, lambda sentence: True),
        "analysis": _analysis(sentences),
        "emotion": _chosen(sentences, _is_emotion),
    }


def make_pair(row: MusicCapsRow, kind: str, topic: str, words: Sequence[str]) -> Pair:
    """A question and its answer, drawn for this clip and topic."""
    dice = Random(f"{row.ytid} {topic}")  # of a text: the same on every machine
    question = dice.choice(QUESTIONS[topic])
    answer = dice.choice(list(_answers(topic, words))) if kind == "short" else " ".join(words)
    return Pair(row.ytid, kind, question, answer, row.caption, row.is_audioset_eval)


def _answers(topic: str, words: Sequence[str]) -> Iterator[str]:
    """Every way to say a short answer."""
    listed = joined(words)
    if topic == "tempo" and words[0].endswith("tempo"):
        yield f"It has a {listed}."
    elif topic == "tempo":
        yield from (f"The tempo is {listed}.", f"It has a {listed} tempo.")
    elif topic == "mood":
        yield from (f"The mood is {listed}.", f"It feels {listed}.")
    elif topic == "instruments":
        yield from (f"The instruments include {listed}.", f"The instrumentation includes {listed}.")
    elif topic == "voices" and words[0] == "instrumental":
        yield "The music is instrumental."
    elif topic == "voices" and words[0].startswith("no "):
        yield f"There {'is' if words[0] == 'no singer' else 'are'} {words[0]}."
    elif topic == "voices":
        yield f"You can hear {listed}."
    elif topic == "genre":
        yield from (f"It is {listed}.", f"It can be described as {listed}.")


_FIXES = (
    (re.compile(r"\s+"), " "),
    (re.compile(r" +([,.;:!?])"), r"\1"),
    (re.compile(r"([a-z]),(?=[A-Za-z])"), r"\1, "),
    (re.compile(r"([a-z]{2})\.(?=[A-Za-z])"), r"\1. "),
    (re.compile(r"\.{2,}"), "."),
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=\S)")


def split_sentences(caption: str) -> list[str]:
    """A caption's sentences, each with a capital and a full stop, its spacing mended."""
    for pattern, repaired in _FIXES:
        caption = pattern.sub(repaired, caption)
    sentences = []
    for sentence in _SENTENCE_END.split(caption.strip()):
        sentence = sentence[:1].upper() + sentence[1:]
        sentences.append(sentence if sentence[-1:] in ".!?" else f"{sentence}.")
    return sentences


_USE = re.compile(  # where the music may be played: a guess about the world, not the music
    r"\b(?:can|could|may|might|would|should|will) (?:\w+ )?(?:be |fit|suit|work|play)|suitable|"
    r"perfect(?:ly)? for|soundtrack|background music|playlist|something you would|good for|ideal"
)
_MUSICAL = re.compile(
    r"\b(?:play\w*|melod\w+|harmon\w+|chords?|rhythm\w*|beats?|bass\w*|drum\w*|guitars?|pianos?|keys|"
    r"keyboards?|synth\w*|strings?|violins?|cellos?|flutes?|brass|trumpets?|saxophones?|percussion\w*|"
    r"vocals?|vocalists?|sing\w*|voices?|tempo|notes?|riffs?|solos?|arpeggi\w+|kick|snares?|cymbals?|"
    r"hi[- ]hats|instruments?|accompan\w+|lead|scale|octaves?|strumm\w+|pluck\w+|layers?|"
    r"instrumental)\b"
)
_QUALITY = re.compile(r"\b(?:audio|sound|recording) (?:quality|is)|quality (?:of|is)|recorded\b")
_RECORDED = re.compile(r"\b(?:noisy|mono|record\w*|quality|stereo|mixed)\b", re.IGNORECASE)
_DANGLING = re.compile(
    r"(?:They|Their|He|She|His|Her|These|Those|Then|Another|Both|Also|But|And|Its)\b"
    r"|The (?:other|first|second|latter|same|rest)\b|This is (?:accompan|follow|back)"
    r"|There (?:is|are) also\b"
)
_DANGLING_OR_IT = re.compile(rf"{_DANGLING.pattern}|It\b")
_MOOD = re.compile(r"\b(?:mood|feel(?:s|ing|ings)?|emotion|atmosphere|vibes?|ambience|evok\w+)\b")
_MOOD_WORDS = "|".join(
    sorted(aspects.BRIGHT | aspects.DARK | aspects.CALM | aspects.WILD | aspects.OTHER)
)
_SOUNDS = re.compile(  # the music itself is, or sounds, one adjective after the other
    r"(?:overall,? )?(?:it |(?:the|this) (?:\w+ )?(?:song|music|track|piece|tune|instrumental) )?"
    r"(?:also )?(?:is|sounds) (?:also |both |very |quite |a |an )*"
    rf"(?:[\w-]+(?:, | and |, and ))*(?:{_MOOD_WORDS})\b",
    re.IGNORECASE,
)


def _is_emotion(sentence: str) -> bool:
    """Whether a sentence says how the music feels."""
    if _USE.search(sentence) or _RECORDED.search(sentence):
        return False
    return bool(_MOOD.search(sentence) or _SOUNDS.match(sentence))


def _is_musical(sentence: str) -> bool:
    """Whether a sentence says how the music is made."""
    musical = _MUSICAL.search(sentence.lower()) and not _USE.search(sentence)
    return bool(musical) and not _QUALITY.search(sentence)


def _chosen(
    sentences: Sequence[str], wanted: Callable[[str], bool], dangling: re.Pattern[str] = _DANGLING
) -> Finding:
    """The wanted sentences, save those whose subject is in one that is not."""
    kept: list[str] = []
    before = True
    for sentence in sentences:
        before = wanted(sentence) and (before or not dangling.match(sentence))
        kept += [sentence] if before else []
    return Finding(tuple(kept)) if kept else Finding(reason="no sentence is about it")


def _analysis(sentences: Sequence[str]) -> Finding:
    """Sentences on how the music is made, where they are not the whole caption again."""
    found = _chosen(sentences, _is_musical, _DANGLING_OR_IT)
    if len(found.words) == len(sentences):
        return Finding(reason="it is the whole caption")
    if all(re.match(r"There (?:is|are) no\b", sentence) for sentence in found.words):
        return Finding(reason="no sentence is about it")
    return found
