import json
from pathlib import Path

import pytest

from musilingo_core.data.instruct_offline import (
    QUESTIONS,
    SHORT,
    split_sentences,
    topics,
    write_offline,
)
from musilingo_core.data.music_instruct import build_music_instruct
from musilingo_core.data.musiccaps import MusicCapsRow, read_musiccaps

EXCERPT = Path(__file__).parent / "musiccaps-50.csv"


def row(caption: str, *aspects: str) -> MusicCapsRow:
    return MusicCapsRow("-0Gj8-vB1q4", 30, 40, aspects, caption, True)


def made(folder: Path) -> list[dict[str, str]]:
    write_offline(EXCERPT, folder)
    files = [folder / f"music_instruct_{kind}.json" for kind in ("short", "long")]
    return [row for file in files for row in json.loads(file.read_text("utf-8"))["QA"]]


def test_every_pair_of_the_excerpt_is_a_question_and_plain_sentences(tmp_path: Path) -> None:
    pairs = made(tmp_path)
    questions = {question for several in QUESTIONS.values() for question in several}
    assert len(pairs) > 200
    for pair in pairs:
        assert pair["question"] in questions
        assert pair["answer"][0].isupper() or not pair["answer"][0].isalpha()
        assert pair["answer"][-1] in ".!?"
        assert "  " not in pair["answer"] and " ," not in pair["answer"]


def test_the_same_pairs_come_out_each_time_and_the_published_builder_reads_them(
    tmp_path: Path,
) -> None:
    assert made(tmp_path / "a") == made(tmp_path / "b")
    files = sorted((tmp_path / "a").glob("music_instruct_*.json"))
    report = build_music_instruct(files, None, tmp_path / "out")
    assert sum(report.counts["examples"].values()) == len(made(tmp_path / "a"))


def test_the_draw_is_the_same_on_every_machine(tmp_path: Path) -> None:
    drawn = [(pair["ytid"], pair["question"], pair["answer"]) for pair in made(tmp_path)[1:3]]
    assert drawn == [
        ("-ByoSbgzr4M", "Is this music slow or fast?", "The tempo is fast."),
        (
            "-ByoSbgzr4M",
            "Which words describe the mood here?",
            "The mood is vigorous and intense.",
        ),
    ]


def test_pairs_and_reasons_add_up_to_every_topic_of_every_row(tmp_path: Path) -> None:
    report = write_offline(EXCERPT, tmp_path)
    pairs = {**report.counts["short pairs"], **report.counts["long pairs"]}
    for topic in QUESTIONS:
        missing = sum(report.counts.get(f"no {topic}", {}).values())
        assert pairs[topic] + missing == len(read_musiccaps(EXCERPT))
    skipped = (tmp_path / "skipped.jsonl").read_text().splitlines()
    assert len(skipped) + sum(pairs.values()) == 8 * 50
    assert "short pairs" in str(report)


def test_long_answers_are_the_sentences_about_it() -> None:
    found = topics(
        row(
            "This is a rock piece. A male vocalist sings over drums. It has a flute, too. "
            "The atmosphere is dark. The recording is noisy. It could be used in a movie."
        )
    )
    assert found["analysis"].words == ("A male vocalist sings over drums.", "It has a flute, too.")
    assert found["emotion"].words == ("The atmosphere is dark.",)
    assert len(found["listening"].words) == 6


@pytest.mark.parametrize(
    ("caption", "topic", "words"),
    [
        ("A piano plays. It sounds sad and slow.", "emotion", ("It sounds sad and slow.",)),
        ("A piano plays. It sounds fun, but is noisy.", "emotion", ()),
        ("The tempo is fast with lively drums.", "emotion", ()),
        (
            "The song is a romantic, emotional one.",
            "emotion",
            ("The song is a romantic, emotional one.",),
        ),
        ("People talk. They play drums.", "analysis", ()),
        ("A dog barks. There are no drums.", "analysis", ()),
        ("A piano plays.", "analysis", ()),
        ("A piano plays. A dog barks.", "analysis", ("A piano plays.",)),
    ],
)
def test_a_sentence_without_its_subject_or_about_something_else_is_left_out(
    caption: str, topic: str, words: tuple[str, ...]
) -> None:
    assert topics(row(caption))[topic].words == words


def test_spacing_and_ends_of_captions_are_mended() -> None:
    caption = (
        "a drum plays , then stops.the song is soft,mellow\nand 8.5 s long.. it is a R.E.M song"
    )
    assert split_sentences(caption) == [
        "A drum plays, then stops.",
        "The song is soft, mellow and 8.5 s long.",
        "It is a R.E.M song.",
    ]


def test_only_the_kinds_and_rows_asked_for_are_made(tmp_path: Path) -> None:
    report = write_offline(EXCERPT, tmp_path, ["short"], max_rows=5)
    topics = {name.removeprefix("no ") for name in report.counts if name.startswith("no ")}
    assert topics <= set(SHORT) and "long pairs" not in report.counts
    pairs = json.loads((tmp_path / "music_instruct_short.json").read_text())["QA"]
    assert {pair["ytid"] for pair in pairs} <= {row.ytid for row in read_musiccaps(EXCERPT)[:5]}
