import json
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.follow_ups import DIALOGUES, SETS, Judged, Song, far, fits, is_known, run, table
from musilingo_core.data.dialogues import questions
from musilingo_core.engine import ChatEngine
from tests.benchmarks.test_claims import FACTS
from tests.conftest import make_clip

TOPICS = (
    "describe", "detail", "instruments", "lead", "genre", "tempo", "singer", "instrumental", "sex",
    "mood", "loud", "drums", "place", "why", "again", "sure", "title", "artist",
)  # fmt: skip


def dialogues() -> list[list[tuple[str, str]]]:
    return [json.loads(line) for line in DIALOGUES.read_text("utf-8").splitlines()]


def test_there_are_fifty_conversations_in_words_unseen_in_training() -> None:
    assert len(dialogues()) == 50 and all(len(dialogue) == 3 for dialogue in dialogues())
    seen = {q.lower() for t in TOPICS for form in ("ask", "and") for q in questions(t, form)}
    asked = {text.lower() for dialogue in dialogues() for _, text in dialogue}
    assert len(seen) > 200 and not asked & seen


@pytest.mark.parametrize(
    ("kind", "answer", "right"),
    [
        ("why", "I hear piano and strings, and the music is slow and soft.", True),
        ("why", "I hear guitar, and the music is slow.", False),
        ("why", "Because of the sound.", False),
        ("drums", "No, there are no drums.", True),
        ("drums", "Yes, there are drums.", False),
        ("drums", "It is slow.", False),
        ("lead", "The lead instrument is piano.", True),
        ("lead", "The lead instrument is strings.", False),
        ("genre", "It is classical music.", True),
        ("genre", "It is slow.", False),
        ("place", "It would fit in a concert hall or at a quiet dinner, because it is slow.", True),
        ("place", "It would fit at a concert or on a long drive, because it is slow.", False),
        (
            "place",
            "It would fit in a concert hall or at a quiet dinner, because it is fast.",
            False,
        ),
        ("place", "It is slow.", False),
        ("title", "I cannot tell the title from the sound.", True),
        ("title", "It is Moonlight.", False),
        ("again", "It is slow and calm.", True),
        ("again", "It is calm, with piano.", False),
        ("sure", "As far as I can hear: it is slow.", True),
    ],
)
def test_an_answer_fits_its_question_and_its_song(kind: str, answer: str, right: bool) -> None:
    assert fits(Judged(kind, "?", answer, "It is slow and calm."), FACTS) is right


def test_the_wrong_song_is_the_one_with_least_in_common() -> None:
    songs = [
        Song("a", "a", FACTS),
        Song("b", "b", replace(FACTS, genre="folk")),
        Song("c", "c", replace(FACTS, genre="metal", tempo="fast", drums="yes", moods=("happy",))),
    ]
    assert far(songs[0], songs).path == "c"
    assert is_known(FACTS) and not is_known(replace(FACTS, tempo=""))


def test_every_set_is_judged_by_the_same_rule(
    engine: ChatEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that knows two songs and says the same of every question."""
    other = replace(
        FACTS, instruments=("guitar",), absent=("piano", "strings"), genre="rock", tempo="fast",
        not_genres=("classical",), voice="male", loudness="loud", drums="yes",
        moods=("energetic", "happy"),
    )  # fmt: skip
    said = {
        1: "It is a slow, soft classical piece with piano; there are no drums, nobody sings, calm.",
        2: "It is a fast, loud rock piece with guitar; there are drums, a man sings, energetic.",
    }
    songs = []
    for rows, facts in ((1, FACTS), (2, other)):
        clip = make_clip(rows=rows, key=f"{rows:016x}")
        engine.cache.put(clip)
        songs.append(Song(str(rows), clip.clip_id, facts))

    def reply(messages: Any) -> str:
        clip = next((p for p in messages[0]["content"] if p["type"] == "clip"), None)
        return said[int(clip["clip_id"], 16)] if clip else "Hm."

    monkeypatch.setattr(
        ChatEngine, "replies", lambda self, talks, sampling: list(map(reply, talks))
    )
    rows = list(run(engine, songs))
    assert len(rows) == 4 * 100
    fit = {
        name: [row["fits"] for row in rows if row["set"] == name and row["kind"] == "why"]
        for name in SETS
    }
    assert all(fit["right song"]) and not any(fit["wrong song"]) and not any(fit["no music"])
    assert any(fit["shuffled"]) and not all(fit["shuffled"])
    text = table(rows)
    assert text.count("\n| right song") > 5 and "| no music | **" in text
