"""Writes the starter's multiple-choice test and its descriptions, for `musilingo evaluate`.

    python -m benchmarks.choices --music data/test/manifest.jsonl \
        --rendered data/scores/manifest.jsonl --sung data/sung/manifest.jsonl --output data/choices

Questions of four options (three for tempo) about instrument, genre, mood, voice and tempo of clips
of 12 s, of 60 s and whole, each class as often as the others. Wrong options are surely
wrong, and are right elsewhere; what is printed as *by options alone* is what one would score who
knows only how often each option is right. The truth is the encoder's tag heads' (*teacher*) or
certain (rendered scores, songs that synthetic voices sing). Questions are worded as in no training
data. ``choices-LENGTH.jsonl`` are the questions, ``descriptions-LENGTH.jsonl`` what a description
of each song would say; ``features.safetensors`` the clips.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from benchmarks.hearing import DESCRIPTION
from benchmarks.truths import Case, hear_all
from musilingo_core import load_engine
from musilingo_core.data.choices import Choice, write_choices
from musilingo_core.data.dialogues import NAMES, SINGERS, TEMPI, summary
from musilingo_core.data.facts import OPPOSED, Facts
from musilingo_core.data.manifest import Example, write_features, write_manifest
from musilingo_core.features import Clip

OPTIONS = 4
MOST, FEWEST = 12, 2  # clips of a class
QUESTIONS = {
    "instrument": ("Which instrument carries this piece?", "What is the chief instrument here?"),
    "genre": ("Which style would you file this under?", "What genre do we have here?"),
    "mood": ("Which mood does it put you in?", "What sort of feeling is in it?"),
    "voice": ("Who is at the microphone?", "Who can be heard singing?"),
    "tempo": ("At what pace is it played?", "Would you call it fast or slow?"),
}


# For each topic right answers and wrong ones, in words; no right one where the facts are silent.
TRUTHS: dict[str, Callable[[Facts], tuple[list[str], list[str]]]] = {
    "instrument": lambda facts: (
        [NAMES[facts.instruments[0]]],
        [NAMES[name] for name in facts.absent],
    ),
    "genre": lambda facts: ([facts.genre], list(facts.not_genres)),
    "mood": lambda facts: (
        [mood for mood in facts.moods if mood in OPPOSED],
        list(facts.not_moods),
    ),
    "voice": lambda facts: (
        [] if facts.voice in ("", "some") else [SINGERS[facts.voice]],
        [words for voice, words in SINGERS.items() if voice not in ("some", facts.voice)],
    ),
    "tempo": lambda facts: (
        [TEMPI[facts.tempo]] if facts.tempo else [],
        [words for tempo, words in TEMPI.items() if tempo != facts.tempo],
    ),
}
ASKED = {
    "teacher": ("instrument", "genre", "mood", "tempo"),
    "teacher, pushed": ("voice",),
    "certain": ("instrument", "tempo"),
    "certain, sung": ("voice",),
}
Options = tuple[Case, list[str]]  # a case and the wrong ones


def questions(truth: str, cases: Sequence[Case], places: dict[str, str]) -> Iterator[Choice]:
    """Questions about cases of one truth; every class as often, at most `MOST` times.

    Args:
        truth: A key of `ASKED`.
        cases: What is known of clips.
        places: Where each clip is, by its id.
    """
    for topic in ASKED[truth]:
        found = [_fair(topic, cases, fewest) for fewest in range(FEWEST, MOST + 1)]
        classes = max(found, key=lambda classes: len(classes) * _each(classes))
        each = _each(classes)
        for name in sorted(classes):
            dice = Random(f"{truth} {topic} {name}")
            for case, wrong in dice.sample(classes[name], each):
                options = [name, *dice.sample(wrong, min(OPTIONS - 1, len(wrong)))]
                dice.shuffle(options)
                yield Choice(
                    places[case.clip.clip_id], dice.choice(QUESTIONS[topic]), tuple(options),
                    options.index(name), (f"{topic} ({truth})",), case.track,
                )  # fmt: skip


def _each(classes: Mapping[str, Sequence[Options]]) -> int:
    """Of how many cases of each class there are questions."""
    return min((len(found) for found in classes.values()), default=0)


def _fair(topic: str, cases: Sequence[Case], fewest: int) -> dict[str, list[Options]]:
    """Cases by right answer, at least so many of each and at most `MOST`.

    No option is wrong everywhere, for then it could be left out unheard.
    """
    least = 2 if topic == "tempo" else OPTIONS - 1  # wrong ones
    told = [(*TRUTHS[topic](case.facts), case) for case in cases]
    common = Counter(name for right, _, _ in told for name in right)
    names = set(common)
    while True:
        classes: defaultdict[str, list[Options]] = defaultdict(list)
        for right, wrong, case in told:
            left = [name for name in wrong if name in names]
            known = [name for name in right if name in names]
            if known and len(left) >= least:
                classes[min(known, key=common.__getitem__)].append((case, left))
        large = {name: found for name, found in classes.items() if len(found) >= fewest}
        if large.keys() == names:
            break
        names = set(large)
    drawn = Random(f"{topic} {len(cases)}")
    return {name: drawn.sample(large[name], min(MOST, len(large[name]))) for name in sorted(large)}


def by_options_alone(choices: Sequence[Choice]) -> float:
    """The share right by taking the option that is right most often on other tracks."""
    hits = 0
    for choice in choices:
        others = [c for c in choices if c.track != choice.track and c.topics == choice.topics]
        shown = Counter(option for c in others for option in c.options)
        right = Counter(c.options[c.answer] for c in others)
        best = max(choice.options, key=lambda o: right[o] / max(shown[o], 1))
        hits += best == choice.options[choice.answer]
    return hits / max(len(choices), 1)


def main() -> None:
    """Writes the test."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--music", type=Path, nargs="+", required=True, metavar="JSONL")
    parser.add_argument("--rendered", type=Path, nargs="*", default=[], metavar="JSONL")
    parser.add_argument("--sung", type=Path, nargs="*", default=[], metavar="JSONL")
    parser.add_argument("--per-album", type=int, default=3)
    parser.add_argument("--lengths", nargs="+", default=["12", "60", "whole"])
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    sounds = hear_all(
        load_engine("starter"), options.per_album, options.music, options.rendered, options.sung
    )
    folder, question = options.output.resolve(), DESCRIPTION.question
    clips: dict[str, Clip] = {}
    for length in options.lengths:
        found = {truth: cases for truth, cases in sounds.cases(length) if truth in ASKED}
        found["certain, sung"] += [c for c in found["certain"] if c.facts.voice == "none"]
        clips |= {case.clip.clip_id: case.clip for cases in found.values() for case in cases}
        places = {key: f"{folder}/features.safetensors#{key}" for key in clips}
        asked = [c for truth, cases in found.items() for c in questions(truth, cases, places)]
        write_choices(
            [replace(c, source=f"{length} s") for c in asked], folder / f"choices-{length}.jsonl"
        )
        told = [
            Example(places[c.clip.clip_id], ((question, summary(c.facts)),), "test", track=c.track)
            for c in found["teacher"]
        ]
        write_manifest(told, folder / f"descriptions-{length}.jsonl")
        alone = 100 * by_options_alone(asked)
        print(
            f"{length}: {len(asked)} questions ({alone:.0f} % by options alone), {len(told)} "
            "descriptions"
        )
    write_features(clips.values(), folder / "features.safetensors")


if __name__ == "__main__":
    main()
