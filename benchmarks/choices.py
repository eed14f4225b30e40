"""Writes the starter's multiple-choice test and its descriptions, for `musilingo evaluate`.

    python -m benchmarks.choices --music data/test/manifest.jsonl \
        --rendered data/scores/manifest.jsonl --output data/choices

Questions of four options (three for tempo) about instrument, genre, mood, voice, tempo and manner
of clips of 12 s, of 60 s and whole, each class as often as the others; wrong options are surely
wrong. The truth is the encoder's tag heads' (*teacher*) or certain (rendered scores). Questions are
worded as in no training data. ``choices-LENGTH.jsonl`` are the questions,
``descriptions-LENGTH.jsonl`` what a description of each song would say; ``features.safetensors``
the clips.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from benchmarks.truths import Case, hear_all
from musilingo_core import load_engine
from musilingo_core.data.choices import Choice, write_choices
from musilingo_core.data.dialogues import NAMES, SINGERS, TEMPI, summary
from musilingo_core.data.facts import OPPOSED, Facts
from musilingo_core.data.manifest import Example, write_features, write_manifest
from musilingo_core.features import Clip

OPTIONS = 4
MOST, FEWEST = 12, 3  # clips of a class
QUESTIONS = {
    "instrument": ("Which instrument carries this piece?", "What is the chief instrument here?"),
    "genre": ("Which style would you file this under?", "What genre do we have here?"),
    "mood": ("Which mood does it put you in?", "What sort of feeling is in it?"),
    "voice": ("Whose singing is it?", "Who can be heard singing?"),
    "tempo": ("At what pace is it played?", "Would you call it fast or slow?"),
    "manner": ("Which describes the playing best?", "How is it played?"),
}


def _manner(facts: Facts) -> str:
    known = facts.tempo in ("slow", "fast") and facts.loudness
    return f"{facts.tempo} and {facts.loudness}" if known else ""


MANNERS = [f"{tempo} and {loudness}" for tempo in ("slow", "fast") for loudness in ("soft", "loud")]
# For each topic the right answer and wrong ones, in words; no right one where the facts are silent.
TRUTHS: dict[str, Callable[[Facts], tuple[str, list[str]]]] = {
    "instrument": lambda facts: (
        NAMES[facts.instruments[0]],
        [NAMES[name] for name in facts.absent],
    ),
    "genre": lambda facts: (facts.genre, list(facts.not_genres)),
    "mood": lambda facts: (
        facts.moods[0] if facts.moods[0] in OPPOSED else "",
        [m for m in OPPOSED.get(facts.moods[0], ()) if m not in facts.moods],
    ),
    "voice": lambda facts: (
        "" if facts.voice in ("", "some") else SINGERS[facts.voice],
        [words for voice, words in SINGERS.items() if voice not in ("some", facts.voice)],
    ),
    "tempo": lambda facts: (
        TEMPI.get(facts.tempo, ""),
        [words for tempo, words in TEMPI.items() if tempo != facts.tempo],
    ),
    "manner": lambda facts: (_manner(facts), [m for m in MANNERS if m != _manner(facts)]),
}
ASKED = {
    "teacher": ("instrument", "genre", "mood", "tempo", "manner"),
    "teacher, pushed": ("voice",),
    "certain": ("instrument", "tempo"),
}


def questions(truth: str, cases: Sequence[Case], places: dict[str, str]) -> Iterator[Choice]:
    """Questions about cases of one truth; every class as often, at most `MOST` times.

    Args:
        truth: A key of `ASKED`.
        cases: What is known of clips.
        places: Where each clip is, by its id.
    """
    for topic in ASKED[truth]:
        fewest_options = 3 if topic == "tempo" else OPTIONS
        classes: defaultdict[str, list[tuple[Case, list[str]]]] = defaultdict(list)
        for case in cases:
            right, wrong = TRUTHS[topic](case.facts)
            if right and len(wrong) >= fewest_options - 1:
                classes[right].append((case, wrong))
        large = {name: found for name, found in classes.items() if len(found) >= FEWEST}
        if len(large) < 2:
            continue
        each = min(MOST, *map(len, large.values()))
        for name in sorted(large):
            dice = Random(f"{truth} {topic} {name}")
            for case, wrong in dice.sample(large[name], each):
                options = [name, *dice.sample(wrong, min(OPTIONS - 1, len(wrong)))]
                dice.shuffle(options)
                yield Choice(
                    places[case.clip.clip_id], dice.choice(QUESTIONS[topic]), tuple(options),
                    options.index(name), (f"{topic} ({truth})",), case.track,
                )  # fmt: skip


def main() -> None:
    """Writes the test."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--music", type=Path, nargs="+", required=True, metavar="JSONL")
    parser.add_argument("--rendered", type=Path, nargs="*", default=[], metavar="JSONL")
    parser.add_argument("--per-album", type=int, default=3)
    parser.add_argument("--lengths", nargs="+", default=["12", "60", "whole"])
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    sounds = hear_all(load_engine("starter"), options.per_album, options.music, options.rendered)
    folder = options.output.resolve()
    clips: dict[str, Clip] = {}
    for length in options.lengths:
        found = {truth: cases for truth, cases in sounds.cases(length) if truth in ASKED}
        clips |= {case.clip.clip_id: case.clip for cases in found.values() for case in cases}
        places = {key: f"{folder}/features.safetensors#{key}" for key in clips}
        asked = [c for truth, cases in found.items() for c in questions(truth, cases, places)]
        write_choices(
            [replace(c, source=f"{length} s") for c in asked], folder / f"choices-{length}.jsonl"
        )
        told = [
            Example(
                places[case.clip.clip_id], (("", summary(case.facts)),), "test", track=case.track
            )
            for case in found["teacher"]
        ]
        write_manifest(told, folder / f"descriptions-{length}.jsonl")
        print(f"{length}: {len(asked)} questions, {len(told)} descriptions")
    write_features(clips.values(), folder / "features.safetensors")


if __name__ == "__main__":
    main()
