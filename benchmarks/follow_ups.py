"""Do second and third answers stay about the song and the question? Fifty written conversations.

    python -m benchmarks.follow_ups --music data/test/manifest.jsonl --output results/follow-ups

Each line of ``follow_ups.jsonl`` is a conversation of three questions, in wordings that the
training data has not, about a song that it has not: one of which the tag heads are sure in every
respect, so an easy one. The second and the third answer are judged by what the encoder's tag heads
say of the song (*teacher*: agreement with a tagger, not truth). The same rule judges four sets of
other replies, which shall fail: those about a wrong song (of another genre and lead instrument),
those about the right song to another conversation's questions, one text that says everything, and
those without any music.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.claims import Claim, claims, judge
from benchmarks.truths import Sounds, hear_all
from musilingo_core import ChatEngine, load_engine
from musilingo_core.data.dialogues import NAMES, PLACES, summary
from musilingo_core.data.facts import Facts
from musilingo_core.evaluation import TOGETHER, commit, talk
from musilingo_core.metrics import bootstrap

DIALOGUES = Path(__file__).with_name("follow_ups.jsonl")
ABOUT = {  # what a question of a kind asks for
    "genre": "genre", "lead": "instrument", "instruments": "instrument", "tempo": "tempo",
    "mood": "mood", "singer": "voice", "loud": "loudness", "drums": "drums",
}  # fmt: skip
BESIDES = 1  # things that an answer may say without having been asked
SETS = ("right song", "wrong song", "shuffled", "one text for all", "no music")


@dataclass(frozen=True)
class Song:
    """A song of the test, with what is known of it."""

    path: str
    clip_id: str
    facts: Facts


@dataclass(frozen=True)
class Judged:
    """A question, its answer and the answer before."""

    kind: str
    question: str
    answer: str
    before: str


def fits(judged: Judged, facts: Facts) -> bool:
    """Whether an answer is about its question and true of a song.

    Nothing it claims may be false. Besides, an answer about a genre, an instrument … must claim a
    true one, and hardly anything else; a reason must claim something true that was not said before;
    a place must suit the genre; a repetition must say what was said before; and what no ear can
    tell must be said not to be known.
    """
    found = claims(judged.answer)
    verdicts = [judge(claim, facts) for claim in found]
    if judged.kind == "title":
        return "cannot" in judged.answer or "do not know" in judged.answer
    if judged.kind in ("again", "sure"):
        return bool(found) and set(found) <= set(claims(judged.before))
    if False in verdicts:
        return False
    if judged.kind == "place":
        return any(
            _suits(genre, facts)
            for genre, places in PLACES.items()
            if any(" " in place and place in judged.answer for place in places.split(" or "))
        )
    true = [claim for claim, verdict in zip(found, verdicts, strict=True) if verdict]
    if judged.kind in ABOUT:
        about = [claim for claim in found if claim.about == ABOUT[judged.kind]]
        if judged.kind == "lead" and about[:1] != [Claim("instrument", facts.instruments[0])]:
            return False
        return bool(set(about) & set(true)) and len(found) - len(about) <= BESIDES
    return bool(set(true) - set(claims(judged.before)))


def _suits(genre: str, facts: Facts) -> bool:
    return genre == facts.genre or genre not in facts.not_genres


def is_known(facts: Facts) -> bool:
    """Whether enough is known of a song to judge every kind of answer."""
    known = (facts.tempo, facts.voice, facts.loudness, facts.drums, facts.moods != ("neutral",))
    return facts.kind == "music" and all(known) and bool(facts.absent and facts.not_genres)


def another(song: Song, songs: Sequence[Song]) -> Song:
    """A song of another genre and another lead instrument; if there is none, any other."""
    others = [other for other in songs if other != song]
    unlike = [
        other
        for other in others
        if other.facts.genre != song.facts.genre
        and other.facts.instruments[0] != song.facts.instruments[0]
    ]
    return Random(song.path).choice(unlike or others)


def elsewhere(number: int, kinds: Sequence[Sequence[str]]) -> int:
    """A conversation in which the second and the third question are of other kinds."""
    others = [n for n, other in enumerate(kinds) if not set(other[1:]) & set(kinds[number][1:])]
    return Random(number).choice(others)


def everything(facts: Facts) -> str:
    """All there is to say, at once."""
    drums = "There are drums." if facts.drums == "yes" else "There are no drums."
    lead = f"The lead instrument is {NAMES[facts.instruments[0]]}."
    return f"{summary(facts)} {lead} {drums} It would fit {PLACES[facts.genre]}."


def answers(
    engine: ChatEngine, asked: Sequence[Sequence[str]], clip_ids: Sequence[str | None]
) -> list[list[str]]:
    """The answers of conversations, some side by side."""
    told: list[list[str]] = []
    for start in range(0, len(asked), TOGETHER):
        part = slice(start, start + TOGETHER)
        told += [[said.text for said in one] for one in talk(engine, asked[part], clip_ids[part])]
    return told


def run(engine: ChatEngine, songs: Sequence[Song]) -> Iterator[dict[str, Any]]:
    """A row for each judged answer of each set."""
    dialogues = [json.loads(line) for line in DIALOGUES.read_text("utf-8").splitlines()]
    asked = [[text for _, text in dialogue] for dialogue in dialogues]
    kinds = [[kind for kind, _ in dialogue] for dialogue in dialogues]
    right = [songs[number % len(songs)] for number in range(len(dialogues))]
    ids = [song.clip_id for song in right]
    shuffled = [asked[elsewhere(number, kinds)] for number in range(len(dialogues))]
    told = {
        "right song": answers(engine, asked, ids),
        "wrong song": answers(engine, asked, [another(song, songs).clip_id for song in right]),
        "shuffled": answers(engine, shuffled, ids),
        "one text for all": [[everything(song.facts)] * 3 for song in right],
        "no music": answers(engine, asked, [None] * len(right)),
    }
    for name in SETS:
        for number, dialogue in enumerate(dialogues):
            song, said = right[number], told[name][number]
            for turn in (1, 2):
                kind, question = dialogue[turn]
                judged = Judged(kind, question, said[turn], said[turn - 1])
                yield {
                    "set": name, "dialogue": number, "song": song.path, "turn": turn + 1,
                    "kind": kind, "question": question, "answer": said[turn],
                    "fits": fits(judged, song.facts),
                }  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Shares that fit, by set, in Markdown; of the right song's also by kind of question."""
    lines = [
        "| replies | second and third answers that fit (95 %) | answers | dialogues, both fit |",
        "|---|--:|--:|--:|",
    ]
    for name in SETS:
        part = [row for row in rows if row["set"] == name]
        hits = [float(row["fits"]) for row in part]
        low, high = bootstrap(hits, [row["song"] for row in part])
        share = 100 * sum(hits) / len(hits)
        interval = f"{100 * low:.0f}–{100 * high:.0f}"
        failed = {row["dialogue"] for row in part if not row["fits"]}
        both = 100 - 100 * len(failed) / len({row["dialogue"] for row in part})
        lines.append(f"| {name} | **{share:.0f}** ({interval}) | {len(hits)} | {both:.0f} |")
    kinds = sorted({row["kind"] for row in rows})
    for kind in kinds:
        part = [row["fits"] for row in rows if row["kind"] == kind and row["set"] == "right song"]
        lines.append(f"| right song, {kind} | {100 * sum(part) / len(part):.0f} | {len(part)} | |")
    return "\n".join(lines) + "\n"


def known_songs(sounds: Sounds) -> list[Song]:
    """Songs of which enough is known, in an order that mixes albums."""
    facts = [(row, clip, sounds.teacher.facts(clip.features)) for row, clip in sounds.songs]
    found = [Song(row["path"], clip.clip_id, f) for row, clip, f in facts if is_known(f)]
    Random(0).shuffle(found)
    return found


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--music", type=Path, nargs="+", required=True, metavar="JSONL")
    parser.add_argument("--preset", default="starter")
    parser.add_argument("--projection", type=Path, help="instead of the preset's")
    parser.add_argument("--per-album", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    engine = load_engine(options.preset, projection=options.projection)
    songs = known_songs(hear_all(engine, options.per_album, options.music))
    rows = list(run(engine, songs))
    options.output.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (options.output / "follow_ups.jsonl").write_text(lines, encoding="utf-8")
    used = len({row["song"] for row in rows})
    command = shlex.join(["python", "-m", "benchmarks.follow_ups", *sys.argv[1:]])
    text = f"{table(rows)}\n{used} songs, at {commit()}:\n\n```bash\n{command}\n```\n"
    (options.output / "follow_ups.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
