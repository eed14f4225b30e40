import json
import re
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.follow_ups import (
    DIALOGUES,
    SETS,
    Judged,
    Song,
    another,
    elsewhere,
    everything,
    fits,
    is_known,
    run,
    table,
)
from musilingo_core.data import dialogues as dialogue_words
from musilingo_core.data.dialogues import questions
from musilingo_core.engine import ChatEngine, Said
from tests.benchmarks.test_claims import FACTS
from tests.conftest import make_clip


def dialogues() -> list[list[tuple[str, str]]]:
    return [json.loads(line) for line in DIALOGUES.read_text("utf-8").splitlines()]


def plain(question: str) -> list[str]:
    """A question's words, without what training data vary in it."""
    text = question.lower()
    for opener in dialogue_words._OPENERS:
        text = text.removeprefix(opener.lower())
    return re.findall(r"[\w']+", dialogue_words._NOUN.sub("song", text))


def apart(one: list[str], other: list[str]) -> int:
    """Words to add, drop or replace to make one of the other."""
    row = list(range(len(other) + 1))
    for i, word in enumerate(one, 1):
        before, row = row, [i]
        for j, theirs in enumerate(other, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (word != theirs)))
    return row[-1]


def test_there_are_fifty_conversations() -> None:
    assert len(dialogues()) == 50 and all(len(dialogue) == 3 for dialogue in dialogues())


def test_questions_are_worded_as_in_no_training_data_nor_nearly_so() -> None:
    for kind, question in {(kind, text) for dialogue in dialogues() for kind, text in dialogue}:
        taught = [*questions(kind), *questions(kind, "and")]
        assert len(taught) > 5
        assert min(apart(plain(question), plain(known)) for known in taught) >= 2, question


@pytest.mark.parametrize(
    ("kind", "answer", "right"),
    [
        ("why", "I hear piano and strings, and the music is slow and soft.", True),
        ("why", "I hear piano and strings without drums, and the music is slow.", True),
        ("why", "I hear guitar, and the music is slow.", False),
        ("why", "Because of the sound.", False),
        ("why", "It is slow.", False),  # which was said before
        ("drums", "There are no drums, it is slow.", True),
        ("drums", "It is a slow, soft classical piece with piano. There are no drums.", False),
        ("lead", "In this slow piece the piano leads.", True),
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
        ("place", "It would fit in a concert hall.", True),
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


def test_the_wrong_song_is_of_another_genre_and_lead_instrument() -> None:
    songs = [
        Song("a", "a", FACTS),
        Song("b", "b", replace(FACTS, genre="folk")),
        Song("c", "c", replace(FACTS, genre="metal", instruments=("guitar",))),
    ]
    assert another(songs[0], songs).path == "c"
    assert another(songs[0], songs[:2]).path == "b"
    assert is_known(FACTS) and not is_known(replace(FACTS, tempo=""))


def test_shuffled_replies_are_to_questions_of_other_kinds() -> None:
    kinds = [[kind for kind, _ in dialogue] for dialogue in dialogues()]
    for number, mine in enumerate(kinds):
        assert not set(mine[1:]) & set(kinds[elsewhere(number, kinds)][1:])


def test_one_text_that_says_everything_fits_hardly_any_question() -> None:
    facts = replace(FACTS, moods=("calm",))
    text = everything(facts)
    judged = [
        fits(Judged(kind, question, text, text), facts)
        for dialogue in dialogues()
        for kind, question in dialogue[1:]
    ]
    assert sum(judged) <= 0.4 * len(judged)


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

    def reply(messages: Any) -> Said:
        clip = next((p for p in messages[0]["content"] if p["type"] == "clip"), None)
        if clip is None:
            return Said("Hm.", True)
        text = said[int(clip["clip_id"], 16)]
        return Said(text if len(messages) > 1 else "I hear music.", True)

    monkeypatch.setattr(
        ChatEngine, "replies", lambda self, talks, sampling: list(map(reply, talks))
    )
    rows = list(run(engine, songs))
    assert len(rows) == 5 * 100
    fit = {
        name: [
            row["fits"]
            for row in rows
            if row["set"] == name and row["kind"] == "why" and row["turn"] == 2
        ]
        for name in SETS
    }
    assert all(fit["right song"]) and not any(fit["wrong song"]) and not any(fit["no music"])
    text = table(rows)
    assert text.count("\n| right song") > 5 and "| no music | **" in text


def test_the_table_counts_answers_and_dialogues() -> None:
    rows = [
        {"set": name, "dialogue": n, "song": str(n), "kind": "mood", "fits": n > 1 or turn == 2}
        for name in SETS
        for n in range(4)
        for turn in (2, 3)
    ]
    lines = table(rows).splitlines()
    assert {line.count("|") for line in lines} == {5}
    assert lines[2].startswith("| right song | **75** (") and lines[2].endswith(" | 8 | 50 |")
    assert lines[-1] == "| right song, mood | 75 | 8 | |"
