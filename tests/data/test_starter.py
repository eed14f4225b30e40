from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
import torch

from musilingo_core.data.dialogues import (
    NAMES,
    SINGERS,
    TEMPI,
    Scene,
    choices,
    questions,
    summary,
    write,
)
from musilingo_core.data.facts import (
    GENRES,
    INSTRUMENTS,
    TEMPO_OFFSET,
    Facts,
    Teacher,
    moods,
    not_moods,
)
from musilingo_core.data.manifest import FeatureFiles, read_manifest
from musilingo_core.data.starter import (
    STRENGTHS,
    Material,
    Mixer,
    Piece,
    Recipe,
    build,
    music_line,
    rendered_facts,
)
from musilingo_core.encoders.musicnn import MusicnnConfig, MusicnnEncoder
from musilingo_core.errors import ConfigError
from musilingo_core.times import Span, find_spans

TAGS = sorted({t for group in (INSTRUMENTS, GENRES) for tags in group.values() for t in tags})
OTHERS = [
    "m:slow", "m:fast", "m:loud", "m:quiet", "m:soft", "m:drums", "m:beat", "m:beats", "m:weird",
    "m:female", "m:woman", "m:female vocal", "m:female voice", "s:female vocalists", "m:male",
    "m:man", "m:male vocal", "m:male voice", "s:male vocalists", "m:vocal", "m:vocals", "m:singing",
    "m:voice", "m:choir", "m:choral", "s:sad", "s:happy", "s:party", "s:beautiful",
]  # fmt: skip


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    """Random tag heads over all the names that facts ask for."""
    torch.manual_seed(0)
    names = sorted({*TAGS, *OTHERS})
    tags = [[n[2:] for n in names if n.startswith(kind)] for kind in ("m:", "s:")]
    encoder = MusicnnEncoder(MusicnnConfig(tags=tags)).eval()
    with torch.no_grad():
        for network in encoder.networks:
            network.head.weight.normal_(std=0.08)
            network.head.bias.fill_(-2)
    return Teacher(encoder)


@pytest.fixture
def songs() -> list[torch.Tensor]:
    dice = torch.Generator().manual_seed(1)
    return [torch.randn(n, 400, generator=dice) for n in (5, 12, 30, 24, 8, 40)]


def pieces(songs: list[torch.Tensor]) -> list[Piece]:
    return [Piece(rows, f"song {number}") for number, rows in enumerate(songs)]


PIANO = Facts(
    instruments=("piano", "strings"),
    absent=("guitar",),
    genre="classical",
    tempo="slow",
    voice="none",
    loudness="soft",
    drums="no",
    moods=("calm", "gentle"),
    not_moods=("energetic", "aggressive", "festive", "strange"),
)


def test_a_summary_says_all_of_the_facts() -> None:
    assert summary(PIANO) == (
        "This is a slow, soft classical piece with piano and strings. "
        "It is instrumental, and it feels calm and gentle."
    )
    sung = Facts(instruments=("guitar",), genre="opera", voice="female", moods=("sad",))
    assert summary(sung) == ("This is an opera piece with guitar. A woman sings, and it feels sad.")


def test_answers_agree_with_the_facts() -> None:
    scene = Scene(PIANO, 100.0, lambda a, b: PIANO)
    said: dict[str, set[str]] = {}
    for seed in range(2000):
        for question, answer in write(scene, Random(seed), 5):
            said.setdefault(question, set()).add(answer)
    assert said["Is it slow or fast?"] == {"It is slow."}
    assert said["Is it instrumental?"] == {"Yes, it is instrumental."}
    assert said["Is there a singer?"] == {"No, nobody sings, it is instrumental."}
    assert said["Is there guitar in it?"] == {"No, I do not hear guitar; I hear piano and strings."}
    assert said["What genre is this?"] == {"It is classical music."}
    assert any(question.startswith("What do you hear at 0:") for question in said)
    assert said["What is the title?"] == {"I cannot tell the title from the sound."}


def test_a_question_about_another_moment_is_answered_as_the_one_before() -> None:
    """So that the turns before have to be read."""
    there = replace(PIANO, instruments=("organ",), tempo="fast", genre="jazz", voice="male")
    scene = Scene(PIANO, 100.0, lambda a, b: there)
    said: dict[tuple[str, str], set[str]] = {}
    for seed in range(9000):
        turns = write(scene, Random(seed), 5)
        for (before, _), (question, answer) in pairwise(turns):
            for topic in ("tempo", "genre", "drums"):
                if before in (*questions(topic), *questions(topic, "and")):
                    said.setdefault((topic, question), set()).add(answer)
    assert said["tempo", "And at the end?"] == {"At the end it is fast."}
    assert said["genre", "And at the end?"] == {"At the end it is jazz music."}
    assert said["drums", "Are you sure?"] == {"No, there are no drums."}
    assert said["tempo", "Are you sure?"] == {"As far as I can hear: it is slow."}
    assert said["genre", "Please repeat that."] == {"It is classical music."}
    assert said["genre", "Why?"] == {
        "I hear piano and strings without drums, and the music is slow and soft."
    }
    assert said["genre", "And the tempo?"] == {"It is slow."}


def test_who_sings_is_asked_mostly_where_someone_does() -> None:
    """Where nobody sings there is one answer; men and women are what has to be told apart."""

    def share(voice: str) -> float:
        facts = replace(PIANO, voice=voice)
        scene = Scene(facts, 100.0, lambda a, b: facts)
        turns = [turn for seed in range(300) for turn in write(scene, Random(seed), 5)]
        return sum(question in questions("sex") for question, _ in turns) / len(turns)

    assert share("female") > 2 * share("none") > 0


@pytest.mark.parametrize(
    ("voice", "answer"),
    [
        ("female", "The singer is female."),
        ("male", "The singer is male."),
        ("choir", "I hear a choir."),
        ("none", "I hear no singer, it is instrumental."),
    ],
)
def test_who_sings_is_told_in_one_form(voice: str, answer: str) -> None:
    facts = replace(PIANO, voice=voice)
    scene = Scene(facts, 10.0, lambda a, b: facts)
    turns = [turn for seed in range(300) for turn in write(scene, Random(seed), 5, False)]
    assert {said for question, said in turns if question in questions("sex")} == {answer}


def test_options_hold_the_right_answer_once_and_nothing_else_that_is_true() -> None:
    facts = replace(PIANO, absent=("guitar", "flute"), not_genres=("rock", "jazz"))
    scene = Scene(facts, 10.0, lambda a, b: facts)
    turns = [turn for seed in range(400) for turn in write(scene, Random(seed), 5, False)]
    chosen = [(q.split("\nOptions:\n- "), a) for q, a in turns if "Options" in q]
    told: dict[str, set[str]] = {}
    for (asked, listed), answer in chosen:
        options = listed.split("\n- ")
        assert options.count(answer) == 1 and len(set(options)) == len(options) > 1
        told.setdefault(answer, set()).update(options)
        assert asked
    assert told["piano"] == {"piano", "guitar", "flute"}  # never strings, which play too
    assert told["classical"] == {"classical", "rock", "jazz"}
    assert told["calm"] >= {"calm", "energetic", "aggressive"} and "gentle" not in told["calm"]
    assert told["slow"] == {"slow", "fast", "neither slow nor fast"}
    assert told["nobody"] == {"nobody", "a man", "a woman", "a choir"}


def test_questions_with_options_are_about_different_things() -> None:
    facts = replace(PIANO, absent=("guitar", "flute"), not_genres=("rock", "jazz"))
    scene = Scene(facts, 10.0, lambda a, b: facts)
    all_of_them = [answer for _, answer in choices(scene, Random(0), 20)]
    assert sorted(all_of_them) == [
        "calm", "classical", "music", "no", "nobody", "piano", "slow", "soft",
    ]  # fmt: skip
    few = [choices(scene, Random(seed), 3) for seed in range(60)]
    assert {len(turns) for turns in few} == {3}
    assert {answer for turns in few for _, answer in turns} == set(all_of_them)
    noise = Scene(Facts("noise"), 10.0, lambda a, b: Facts("noise"))
    assert [answer for _, answer in choices(noise, Random(0), 20)] == ["noise"]


def test_who_hears_nothing_says_one_option_as_often_as_another() -> None:
    scene = Scene(PIANO, 10.0, lambda a, b: PIANO)
    turns = [t for seed in range(400) for t in choices(scene, Random(seed), 20, heard=False)]
    told = [answer for _, answer in turns]
    assert all(answer in question.split("\n- ") for question, answer in turns)
    for group in (SINGERS, TEMPI):
        counts = [told.count(words) for name, words in group.items() if name != "some"]
        assert min(counts) > 0.7 * max(counts) > 50


def test_every_topic_has_wordings() -> None:
    facts = replace(PIANO, voice="female", not_genres=("rock",))
    scene = Scene(facts, 100.0, lambda a, b: facts)
    asked = {q for seed in range(4000) for q, _ in write(scene, Random(seed), 5)}
    for topic in ("describe", "lead", "sex", "title", "change"):
        assert set(questions(topic)) <= asked
    assert set(questions("drums", "and")) <= asked and questions("drums", "nothing") == ()


def test_questions_are_put_in_slightly_other_words() -> None:
    scene = Scene(PIANO, 100.0, lambda a, b: PIANO)
    asked = {q for seed in range(4000) for q, _ in write(scene, Random(seed), 5)}
    assert {"Describe the song.", "Describe the tune."} <= asked
    assert any(question.startswith("Now, ") for question in asked)


@pytest.mark.parametrize(("topic", "span"), [("begin", Span(0, 10)), ("end", Span(110, 120))])
def test_questions_about_an_edge_get_its_music(topic: str, span: Span) -> None:
    for wording in questions(topic):
        for noun in ("song", "piece", "track", "tune"):
            assert find_spans(wording.replace("song", noun), 120.0) == [span]


def test_moods_do_not_contradict_each_other() -> None:
    logits = {"s:sad": -4.5, "s:happy": -4.0, "m:weird": -9.0, "s:party": -9.0, "s:beautiful": -9.0}
    assert moods(Facts(tempo="moderate"), logits) == ("happy",)  # clearer than sad
    assert moods(Facts(tempo="slow"), logits) == ("calm", "sad")
    assert moods(Facts(tempo="fast", loudness="soft"), logits) == ("energetic", "happy")


def test_a_mood_is_surely_not_there_without_a_sign_of_it() -> None:
    logits = {"s:sad": -4.5, "s:happy": -6.0, "m:weird": -9.0, "s:party": -9.0, "s:beautiful": -9.0}
    facts = Facts(tempo="slow", genre="folk", not_genres=("ambient", "rock"), moods=("calm", "sad"))
    # Gentle might fit: the loudness is not known.
    assert not_moods(facts, logits) == (
        "dreamy", "beautiful", "energetic", "aggressive", "happy", "festive", "strange",
    )  # fmt: skip
    neutral = Facts(tempo="moderate", genre="folk", moods=("neutral",))
    assert not_moods(neutral, dict.fromkeys(logits, 0.0)) == ()


def test_certain_facts_come_before_the_teacher_s(
    teacher: Teacher, songs: list[torch.Tensor]
) -> None:
    certain = Facts(instruments=("bells",), tempo="slow", voice="none")
    facts = teacher.facts(songs[0], certain)
    assert facts.instruments == ("bells",) and facts.voice == "none"
    assert "calm" in facts.moods and "energetic" not in facts.moods
    assert facts.genre == teacher.facts(songs[0]).genre
    assert teacher.facts(songs[0], Facts("noise")) == Facts("noise")


@pytest.mark.parametrize("kind", ["noise", "speech", "silence"])
def test_what_is_no_music_is_called_so(kind: str) -> None:
    facts = Facts(kind=kind)
    for _, answer in write(Scene(facts, 20.0, lambda a, b: facts), Random(0), 4):
        assert "music" in answer and ("not" in answer or "no music" in answer)


def test_conversations_do_not_repeat_a_topic() -> None:
    scene = Scene(PIANO, 100.0, lambda a, b: PIANO)
    for seed in range(50):
        questions = [question for question, _ in write(scene, Random(seed), 5)]
        assert len(set(questions)) == len(questions) <= 5


def test_the_teacher_labels_a_mixture_as_the_mixture_of_its_logits(
    teacher: Teacher, songs: list[torch.Tensor]
) -> None:
    mixed = torch.stack([songs[0].mean(0), songs[1].mean(0)])
    both = (teacher.logits(songs[0]) + teacher.logits(songs[1])) / 2
    torch.testing.assert_close(teacher.logits(mixed), both, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("pace", "tempo"),
    [(-0.7, "slow"), (-0.4, ""), (-0.1, "moderate"), (0.1, "moderate"), (0.4, ""), (0.7, "fast")],
)
def test_between_a_tempo_and_a_moderate_one_nothing_is_said(
    teacher: Teacher, songs: list[torch.Tensor], pace: float, tempo: str
) -> None:
    fast, slow = teacher.number["m:fast"], teacher.number["m:slow"]
    weights = teacher.heads()
    towards, logits = weights[fast] - weights[slow], teacher.logits(songs[0])
    missing = pace - TEMPO_OFFSET - float(logits[fast] - logits[slow])
    assert teacher.facts(songs[0] + missing / towards.square().sum() * towards).tempo == tempo


@pytest.mark.parametrize("genre", ["jazz", "opera", "metal"])
def test_a_push_makes_a_class_win(teacher: Teacher, songs: list[torch.Tensor], genre: str) -> None:
    mixer = Mixer(songs, teacher, Random(0))
    rivals = [tag for name, tags in GENRES.items() if name != genre for tag in tags]
    wins = [teacher.facts(mixer.push(mixer.real(), GENRES[genre], rivals)).genre for _ in range(20)]
    assert wins.count(genre) >= 15


def test_made_up_rows_stay_within_the_encoder_s_range(
    teacher: Teacher, songs: list[torch.Tensor]
) -> None:
    mixer = Mixer(songs, teacher, Random(0))
    for _ in range(20):
        rows = mixer.made()
        assert rows.abs().max() <= 4 and torch.isfinite(rows).all()


def test_strayed_rows_grow_and_move_alike_within_the_encoder_s_range(
    teacher: Teacher, songs: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    mixer = Mixer(songs, teacher, Random(0))
    rows = 0.1 * songs[0]
    monkeypatch.setattr("musilingo_core.data.starter.STRAY", 0.0)
    grown = [float((mixer.strayed(rows) / rows).median()) for _ in range(50)]
    assert STRENGTHS[0] <= min(grown) < 1 < 1.3 < max(grown) <= STRENGTHS[1]
    monkeypatch.setattr("musilingo_core.data.starter.STRAY", 0.4)
    monkeypatch.setattr("musilingo_core.data.starter.STRENGTHS", (1.0, 1.0))
    moved = mixer.strayed(rows) - rows
    assert moved.std() > 0 and torch.allclose(moved, moved[:1].expand_as(moved), atol=1e-6)
    assert mixer.strayed(torch.full((2, 400), 3.99)).max() == 4


def test_built_data_is_read_back_and_splits_share_no_song(
    teacher: Teacher,
    songs: list[torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("musilingo_core.data.starter.STRAY", 0.0)  # so that songs are known again
    monkeypatch.setattr("musilingo_core.data.starter.STRENGTHS", (1.0, 1.0))
    folder = tmp_path
    row = {"family": "organ", "tempo": "fast", "drums": False}
    material = Material(
        pieces(songs),
        [Piece(torch.randn(10, 400), "score", rendered_facts(row))],
        [Piece(torch.randn(9, 400), "recording", Facts(voice="choir"))],
        [Piece(torch.randn(4, 400), "hum", Facts("noise"))],
    )
    recipe = Recipe(clips=120, validation=0.2, seed=3)
    counts = build(material, teacher.encoder, folder, recipe)
    examples = read_manifest(folder / "manifest.jsonl")
    heard = [example for example in examples if example.clip]
    assert {example.source for example in examples if not example.clip} == {"unheard"}
    assert 8 <= len(examples) - len(heard) <= 80
    clips = {example.clip: [e for e in heard if e.clip == example.clip] for example in heard}
    assert len(clips) == sum(counts.values()) > 100
    assert {sum(len(e.turns) > 1 for e in about) for about in clips.values()} >= {0, 2}
    assert {len(about) for about in clips.values()} >= {
        recipe.choices + 2, recipe.choices + recipe.questions,
    }  # fmt: skip
    assert any(len(example.turns) > 2 for example in examples)
    rows = {split: set[float]() for split in ("train", "validation")}
    for example in examples:
        if example.source == "real":
            features = FeatureFiles().get(example.clip).features
            rows[example.split] |= set(features[:, 0].tolist())
    assert rows["validation"] and not rows["train"] & rows["validation"]
    assert {example.source for example in examples} >= {
        "real", "made", "rendered", "sung", "noise",
    }  # fmt: skip
    told = {a for e in examples if e.source == "sung" for q, a in e.turns if q in questions("sex")}
    assert told == {"I hear a choir."}
    files = FeatureFiles()
    lengths = [files.get(example.clip).duration_s for example in heard]
    assert min(lengths) < 4 and max(lengths) > 300
    again = build(material, teacher.encoder, folder / "again", recipe)
    assert again == counts
    assert [e.turns for e in read_manifest(folder / "again" / "manifest.jsonl")] == [
        e.turns for e in examples
    ]


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_songs_to_hold_one_out_are_said_to_be(
    teacher: Teacher, songs: list[torch.Tensor], tmp_path: Path, count: int
) -> None:
    with pytest.raises(ConfigError, match=f"at least two songs.* name {count};"):
        build(Material(pieces(songs[:count])), teacher.encoder, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_song_of_one_row_is_drawn_from_like_any_other(teacher: Teacher) -> None:
    mixer = Mixer([torch.ones(1, 400)], teacher, Random(0))
    for _ in range(20):
        assert torch.isfinite(mixer.made()).all()


def test_rendered_scores_have_certain_facts() -> None:
    facts = rendered_facts({"family": "bells", "tempo": "medium", "drums": True})
    assert facts.instruments == ("bells",) and facts.tempo == "moderate" and facts.drums == "yes"
    # Whatever may be right may be wrong elsewhere: else the options would tell the answer.
    assert {*facts.absent, "bells"} == set(NAMES) and "bells" not in facts.absent
    row = {"family": "flute", "second": "harp", "tempo": "slow"}
    assert not {"flute", "harp"} & set(rendered_facts(row).absent)


def test_a_moderate_tempo_is_certain_among_options_only(
    teacher: Teacher,
    songs: list[torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("musilingo_core.data.starter.STRENGTHS", (1.0, 1.0))
    facts = rendered_facts({"family": "organ", "tempo": "medium", "drums": False})
    score = Piece(torch.full((9, 400), 4.0), "score", facts)  # which the teacher calls slow or fast
    assert teacher.facts(score.rows).tempo in ("slow", "fast")
    material = Material(pieces(songs), [score, replace(score, work="another")])
    build(material, teacher.encoder, tmp_path, Recipe(80, rendered=1.0, not_music=0, unheard=0))
    told = [t for e in read_manifest(tmp_path / "manifest.jsonl") for t in e.turns]
    chosen = {a for q, a in told if "- slow" in q}
    assert chosen == {"neither slow nor fast"}
    assert not [a for _, a in told if "is neither" in a]  # as open questions are answered


def test_a_work_is_on_one_side_whatever_else_there_is() -> None:
    scores = [Piece(torch.zeros(1, 4), f"score {n // 3}") for n in range(300)]
    sung = [Piece(torch.zeros(1, 4), f"song {n}") for n in range(60)]
    songs = [Piece(torch.zeros(1, 4), f"song {n}") for n in range(60)]
    aside, rest = Material(songs, scores, sung).split()
    for held, kept in ((aside.songs, rest.sung), (aside.sung, rest.songs)):
        assert held and not {p.work for p in held} & {p.work for p in kept}
    assert 10 < len(aside.rendered) < 50 and len(aside.rendered) + len(rest.rendered) == 300
    assert not {p.work for p in aside.rendered} & {p.work for p in rest.rendered}
    more, _ = Material([*songs, Piece(torch.zeros(1, 4), "another")], scores).split()
    assert {p.work for p in aside.songs} <= {p.work for p in more.songs}
    two, one = Material(songs[:2]).split()
    assert len(two.songs) == len(one.songs) == 1


def test_of_several_mixtures_the_rarest_is_kept(
    teacher: Teacher, songs: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unevenness(candidates: int) -> int:
        monkeypatch.setattr("musilingo_core.data.starter.CANDIDATES", candidates)
        build(
            Material(pieces(songs)),
            teacher.encoder,
            tmp_path / str(candidates),
            Recipe(200, real=0, unheard=0),
        )
        examples = read_manifest(tmp_path / str(candidates) / "manifest.jsonl", "train")
        clips = {example.clip: None for example in examples}
        facts = [teacher.facts(FeatureFiles().get(clip).features) for clip in clips]
        had = Counter(name for f in facts for name in (f.genre, f.instruments[0], f.moods[0]))
        return sum(count**2 for count in had.values())

    assert unevenness(8) < 0.95 * unevenness(1)


def test_a_line_parts_music_from_what_is_none_whichever_there_is_more_of() -> None:
    def cloud(rows: int, at: float) -> torch.Tensor:
        return torch.randn(rows, 400) + torch.tensor([at, -at] + 398 * [0.0])

    music, noise = Piece(cloud(600, 4), "song"), Piece(cloud(900, -4), "noise", Facts("noise"))
    line = music_line(Material([music], [music], [music], [noise]))
    assert line is not None
    sides = [cloud(50, at) @ line[:-1] + line[-1] for at in (4, -4)]
    assert (sides[0] > 0).all() and (sides[1] < 0).all()
    assert abs(sides[0].mean() + sides[1].mean()) < 0.3 * sides[0].mean()  # zero is in the middle
    assert music_line(Material([music])) is None


def test_mixtures_that_sound_like_no_music_are_passed_over(
    teacher: Teacher, songs: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    material, line = Material(pieces(songs)), torch.tensor([1.0] + 400 * [0.0])
    monkeypatch.setattr("musilingo_core.data.starter.music_line", lambda part: line)

    def strange(candidates: int) -> int:
        monkeypatch.setattr("musilingo_core.data.starter.CANDIDATES", candidates)
        folder = tmp_path / str(candidates)
        build(material, teacher.encoder, folder, Recipe(120, real=0, not_music=0, unheard=0))
        examples = read_manifest(folder / "manifest.jsonl", "train")
        rows = [FeatureFiles().get(clip).features for clip in {e.clip for e in examples}]
        return sum(float(r.mean(0) @ line[:-1] + line[-1]) < 0 for r in rows)

    assert strange(6) < 0.5 * strange(1) > 5


def test_captions_are_of_single_rows_with_words_to_begin_with(
    teacher: Teacher, songs: list[torch.Tensor], tmp_path: Path
) -> None:
    hum = Piece(torch.randn(4, 400), "hum", Facts("noise"))
    material = Material(pieces(songs), other=[hum])
    build(material, teacher.encoder, tmp_path, Recipe(60, captions=True))
    examples = read_manifest(tmp_path / "manifest.jsonl")
    assert len({example.clip for example in examples}) == len(examples) == 59
    for example in examples:
        assert len(FeatureFiles().get(example.clip).features) == 1
        ((instruction, response),) = example.turns
        assert instruction == "" and len(example.words) == 16
        if example.source == "noise":
            assert set(example.words) == {"noise"} and "only noise" in response
        else:
            assert example.words[0] == "music" and example.words[3] in response
