"""The pure parts of the score renderer: splitting, arranging, planning and writing MIDI."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks import scores
from benchmarks.scores import Note, Plan, Score, Section, Voice

SCALE = tuple(
    Note(float(beat), 1.0, pitch) for beat, pitch in enumerate((60, 62, 64, 65, 67, 69, 71, 72))
)
TUNE = Score("folder/tune.abc", "traditional", (SCALE,), bar=4.0, pickup=0.0, end=8.0)
PLAN = Plan("piano", (0,), "slow", 60, "medium", drums=False)


def squeezed(score: Score, factor: float) -> Score:
    """The same tune in notes that are shorter by a factor."""
    part = tuple(Note(n.start / factor, n.length / factor, n.pitch) for n in score.parts[0])
    return replace(score, parts=(part,), bar=score.bar / factor, end=score.end / factor)


def starts(score: Score) -> list[float]:
    return [note.start for note in score.parts[0]]


def test_movements_of_a_work_share_a_split() -> None:
    names = [f"mozart/k155/movement{number}.mxl" for number in (1, 2, 3)]

    assert {scores.work_of(name) for name in names} == {"mozart/k155"}
    assert len({scores.split_of(name) for name in names}) == 1


def test_movements_of_a_cantata_share_a_split() -> None:
    assert scores.work_of("bach/bwv248.42-s.mxl") == scores.work_of("bach/bwv248.5.mxl")


def test_every_score_is_in_one_split_and_about_a_third_is_test() -> None:
    names = [f"ryansMammoth/Tune{number}Reel.abc" for number in range(600)]

    splits = Counter(scores.split_of(name) for name in names)

    assert set(splits) == {"train", "test"}
    assert 150 < splits["test"] < 250


def test_chosen_names_interleave_the_sources_and_never_leave_their_split() -> None:
    quartets = [f"mozart/k{n}/movement1.mxl" for n in range(90)]
    names = [f"bach/bwv{n}.mxl" for n in range(90)] + quartets

    chosen = scores.choose_names(names, "train", seed=0, more=True)

    first = Counter(source.composer for _, source in chosen[:22])
    assert first["Johann Sebastian Bach"] > first["Wolfgang Amadeus Mozart"] > 0
    assert {scores.split_of(name) for name, _ in chosen} == {"train"}
    assert chosen == scores.choose_names(names, "train", seed=0, more=True)


def test_further_sources_come_on_demand_and_leave_the_others_in_their_order() -> None:
    names = [f"bach/bwv{n}.mxl" for n in range(30)] + ["mozart/k1/movement1.mxl"] * 5

    more = scores.choose_names(names, "train", seed=0, more=True)
    usual = scores.choose_names(names, "train", seed=0)

    assert usual == [(name, source) for name, source in more if not source.more]


def test_sixteenths_are_counted_in_eighths_and_half_notes_in_half_notes() -> None:
    in_eighths = squeezed(TUNE, 2)  # two onsets a quarter note: the quarter stays the beat
    in_sixteenths = squeezed(TUNE, 4)
    in_quarters = TUNE  # one onset a quarter note is too few: the half becomes the beat

    beats = [scores.set_beat(tune) for tune in (in_eighths, in_sixteenths, in_quarters)]

    assert [beat and beat.beat_quarters for beat in beats] == [1.0, 0.5, 2.0]
    assert all(beat is not None and beat.onsets_per_beat == 2.0 for beat in beats)


def test_a_tune_whose_bar_has_no_whole_number_of_beats_is_refused() -> None:
    assert scores.set_beat(replace(TUNE, bar=3.0)) is None


@pytest.mark.parametrize(
    ("pitches", "sharps", "triad"),
    [((60, 64, 67), 0, (0, 4, 7)), ((62, 66, 69), 1, (2, 6, 9)), ((69, 72, 76), 0, (9, 0, 4))],
)
def test_harmony_of_a_broken_triad_is_that_triad(
    pitches: tuple[int, ...], sharps: int, triad: tuple[int, int, int]
) -> None:
    assert scores.triad_for([Note(0, 1, pitch) for pitch in pitches], sharps) == triad


def test_accompaniment_has_one_bass_note_a_bar_and_chords_between() -> None:
    chords, bass = scores.accompaniment(SCALE, sharps=0, bar=4.0, pickup=0.0)

    assert [note.start for note in bass] == [0.0, 4.0]
    assert {note.start for note in chords} == {1.0, 2.0, 3.0, 5.0, 6.0, 7.0}
    assert max(note.pitch for note in bass) < min(note.pitch for note in chords)


def test_excerpt_begins_on_a_bar_and_goes_round() -> None:
    music = scores.excerpt(TUNE, start_bar=1, beats=10.0)

    assert starts(music) == [float(beat) for beat in range(10)]
    assert [note.pitch for note in music.parts[0]][:5] == [67, 69, 71, 72, 60]
    assert music.end == 10.0


def test_excerpt_leaves_the_pickup_out_but_for_the_way_back() -> None:
    with_pickup = replace(TUNE, pickup=1.0, end=9.0)

    music = scores.excerpt(with_pickup, start_bar=0, beats=8.0)

    assert [note.pitch for note in music.parts[0]] == [62, 64, 65, 67, 69, 71, 72, 60]


def test_excerpt_with_the_pickup_leads_back_by_it_where_the_last_bar_leaves_room() -> None:
    upbeat = replace(TUNE, parts=(SCALE[:4],), bar=3.0, pickup=1.0, end=7.0)  # last bar: 1 note

    music = scores.excerpt(upbeat, 0, beats=10.0, with_pickup=True)

    assert music.pickup == 1.0
    assert [(note.start, note.pitch) for note in music.parts[0]] == [
        (0.0, 60),
        (1.0, 62),
        (2.0, 64),
        (3.0, 65),
        (6.0, 60),
        (7.0, 62),
        (8.0, 64),
        (9.0, 65),
    ]


def test_pickup_is_not_repeated_into_a_full_last_bar() -> None:
    full = replace(TUNE, bar=4.0, pickup=4.0, end=8.0)

    music = scores.excerpt(full, 0, beats=8.0)

    assert [note.pitch for note in music.parts[0]] == [67, 69, 71, 72] * 2


def test_a_part_is_moved_by_octaves_into_the_range_and_keeps_its_shape() -> None:
    low = [Note(0, 1, 36), Note(1, 1, 43)]

    assert [note.pitch for note in scores.place(low, 60, 96)] == [60, 67]
    assert all(60 <= note.pitch <= 75 for note in scores.place(SCALE * 2, 60, 75))


@pytest.mark.parametrize("family", scores.FAMILIES)
def test_every_family_has_room_for_an_octave_and_valid_programs(family: str) -> None:
    found = scores.FAMILIES[family]

    assert found.high - found.low >= 11
    assert all(0 <= program < 128 for palette in found.palettes for program in palette)


def test_parts_from_high_to_low_get_the_instruments_from_high_to_low() -> None:
    quartet = replace(TUNE, parts=(SCALE,) * 4)

    voices = scores.arrange(quartet, replace(PLAN, family="strings", programs=(40, 40, 41, 42)))

    assert [voice.program for voice in voices] == [40, 40, 41, 42]


def test_drums_come_only_when_planned_and_keep_to_the_bar() -> None:
    plain = scores.arrange(TUNE, PLAN)
    drummed = scores.arrange(TUNE, replace(PLAN, drums=True))

    assert not any(voice.drums for voice in plain)
    assert drummed[-1].drums
    assert {note.start % 4 for note in drummed[-1].notes if note.pitch == 36} == {0.0, 2.0}
    assert {note.start % 4 for note in drummed[-1].notes if note.pitch == 38} == {1.0, 3.0}


def test_plans_are_balanced_over_family_and_tempo_and_repeatable() -> None:
    plans = scores.make_plans(132, tuple(scores.TEMPI), drum_share=0.2, seed=0)

    cells = Counter((plan.family, plan.tempo) for plan in plans)

    assert len(cells) == 33
    assert set(cells.values()) == {4}
    assert plans == scores.make_plans(132, tuple(scores.TEMPI), drum_share=0.2, seed=0)
    assert not any(plan.drums for plan in plans if plan.tempo == "slow")


def test_slow_always_sounds_slower_than_fast() -> None:
    fewest, most = scores.ONSETS_PER_BEAT

    assert scores.TEMPI["slow"][1] * most < scores.TEMPI["fast"][0] * fewest


def test_midi_bytes_of_one_note_are_as_the_standard_says() -> None:
    midi = scores.midi_bytes([Voice(6, (Note(0.0, 1.0, 60),), 78)], bpm=120)

    header = bytes.fromhex("4d546864 00000006 0001 0002 01e0")
    tempo = bytes.fromhex("4d54726b 0000000b 00ff5103 07a120 00ff2f00")
    note = bytes.fromhex("4d54726b 00000010 00c006 00903c56 8342803c00 00ff2f00")
    assert midi == header + tempo + note


def test_onsets_are_counted_once_a_moment_and_without_drums() -> None:
    voices = [Voice(0, SCALE, 78), Voice(0, SCALE, 78), Voice(0, SCALE, 78, drums=True)]

    assert scores.onsets_per_second(voices, bpm=60, seconds=4.0) == 1.0


def clip_of(*plans: Plan, score: Score = TUNE, seconds: float = 10.0) -> list[Section]:
    return scores.make_sections(score, plans, seconds, random.Random("0 1"))


def test_the_same_seed_gives_the_same_clip() -> None:
    assert scores.joined(clip_of(PLAN)) == scores.joined(clip_of(PLAN))


def test_compound_metre_has_dotted_beats_that_go_slower_and_hold_more() -> None:
    jig = tuple(Note(n / 2, 0.5, 60 + n) for n in range(12))  # two bars of 6/8, in quarters
    score = replace(TUNE, parts=(jig,), bar=3.0, end=6.0, metre="6/8")

    beat = scores.set_beat(score)

    assert beat is not None and (beat.beat_quarters, beat.bar, beat.end) == (1.5, 2.0, 4.0)
    assert beat.onsets_per_beat == 3.0
    assert scores.fitted(replace(PLAN, bpm=90), beat).bpm == 60
    assert scores.fitted(PLAN, TUNE) == PLAN


@pytest.mark.parametrize(
    ("metre", "grouping", "division"),
    [
        ("2/4", "duple", "simple"),
        ("4/4", "duple", "simple"),
        ("3/2", "triple", "simple"),
        ("6/8", "duple", "compound"),
        ("9/8", "triple", "compound"),
        ("12/8", "duple", "compound"),
    ],
)
def test_metres_are_grouped_and_divided(metre: str, grouping: str, division: str) -> None:
    score = replace(TUNE, metre=metre)

    assert (score.grouping, score.division) == (grouping, division)


def test_jigs_are_accompanied_on_their_second_beat_and_drummed_in_threes() -> None:
    chords, bass = scores.accompaniment(SCALE[:6], sharps=0, bar=3.0, pickup=0.0, beat=1.5)

    assert [note.start for note in bass] == [0.0, 3.0]
    assert {(note.start, note.length) for note in chords} == {(1.5, 1.5), (4.5, 1.5)}
    drums = scores.drum_part(2.0, 2.0, division=3)
    assert [note.start * 3 for note in drums if note.pitch == 42] == list(range(6))
    assert [note.start for note in drums if note.pitch in (36, 38)] == [0.0, 1.0]


class Sign(NamedTuple):
    """A key signature as music21 gives them."""

    sharps: int
    mode: str | None = None


@pytest.mark.parametrize(
    ("signs", "bass", "key"),
    [
        ([Sign(1)], 43, (7, "major")),
        ([Sign(1, "minor")], 40, (4, "minor")),
        ([Sign(-3, "minor"), Sign(-3)], 36, (0, "minor")),
        ([Sign(1, "major")], 40, None),  # ends on E under the sign of G major
        ([Sign(1)], 38, None),  # ends on the dominant
        ([Sign(0, "dorian")], 38, None),
        ([Sign(0), Sign(1)], 43, None),
        ([], 36, None),
    ],
)
def test_a_key_is_certain_where_signature_mode_and_last_bass_note_agree(
    signs: list[Sign], bass: int, key: tuple[int, str] | None
) -> None:
    part = (Note(0.0, 1.0, 60), Note(1.0, 1.0, bass), Note(1.0, 1.0, bass + 7))

    assert scores.key_of(signs, part) == key


def chorded(*pitches: int) -> tuple[Note, ...]:
    """The scale of C that ends on a long chord."""
    return (*SCALE, *(Note(8.0, 4.0, pitch) for pitch in pitches))


@pytest.mark.parametrize(
    ("chord", "key", "transpose", "name"),
    [
        ((48, 52, 55), (0, "major"), 0, "C major"),
        ((48, 52, 55), (0, "major"), 3, "E-flat major"),
        ((45, 48, 52), (9, "minor"), 4, "C-sharp minor"),
        ((45, 48, 52), (0, "major"), 0, ""),
        ((48, 52, 55), None, 0, ""),
    ],
)
def test_a_key_is_named_as_it_sounds_where_the_excerpt_bears_it_out(
    chord: tuple[int, ...], key: tuple[int, str] | None, transpose: int, name: str
) -> None:
    pytest.importorskip("music21", reason="music21 is not installed: nothing analyses keys")
    music = replace(TUNE, parts=(chorded(*chord),), end=12.0, key=key)
    sections = clip_of(replace(PLAN, transpose=transpose), score=music)

    row = scores.make_row(Path("a.flac"), music, "train", sections)

    assert row["key"] == name
    assert (row["key_margin"] or 0) > 0.1 if name else not row["key_margin"]


def test_the_melody_goes_to_one_family_and_the_rest_to_another() -> None:
    quartet = replace(TUNE, parts=(SCALE,) * 4)
    pair = replace(PLAN, second="strings", second_programs=(40, 41, 42))

    (section,) = clip_of(pair, score=quartet)

    assert [voice.program for voice in section.voices] == [0, 40, 41, 42]
    assert [voice.velocity for voice in section.voices] == [78, 51, 51, 51]


def test_a_second_family_that_hardly_plays_is_given_up() -> None:
    rare = replace(TUNE, parts=(SCALE, SCALE[:1]))

    for score in (TUNE, rare):
        (section,) = clip_of(replace(PLAN, second="harp", second_programs=(46,)), score=score)
        assert section.plan.second == ""
        assert {voice.program for voice in section.voices} == {0}


def test_transposed_notes_keep_their_distances() -> None:
    (voice,) = scores.arrange(TUNE, replace(PLAN, transpose=-5))

    assert [note.pitch for note in voice.notes] == [note.pitch - 5 for note in SCALE]


def test_a_change_comes_on_a_bar_line_and_cuts_what_sounds() -> None:
    long = replace(TUNE, parts=(tuple(replace(note, length=30.0) for note in SCALE),))
    fast = replace(PLAN, tempo="fast", bpm=120)

    first, second = clip_of(PLAN, fast, score=long, seconds=20.0)

    assert first.end_s == second.start_s and first.end_s % 4 == 0  # a bar lasts 4 s
    assert 0.3 * 20 <= first.end_s <= 0.7 * 20 and second.end_s == 20.0
    voices, tempi = scores.joined([first, second])
    turn = first.music.end
    assert tempi == [(0.0, 60.0), (turn, 120.0)]
    assert all(note.start + note.length <= turn for note in voices[0].notes)
    assert {note.start for note in voices[1].notes} == {
        turn + beat for beat in range(int(second.music.end))
    }
    tempo = scores._variable_length(round(turn * scores.TICKS)) + bytes.fromhex("ff5103 07a120")
    assert tempo in scores.midi_bytes(voices, 60, changes=tempi[1:])


def test_a_row_says_what_holds_throughout_and_what_does_not() -> None:
    row = scores.make_row(
        Path("a.flac"), TUNE, "train", clip_of(PLAN, replace(PLAN, family="harp", programs=(46,)))
    )

    assert "family" not in row and row["tempo"] == "slow" and row["work"] == "folder/tune"
    first, second = row["sections"]
    assert (first["family"], second["family"], second["program"]) == ("piano", "harp", 46)
    assert (first["start_s"], second["end_s"]) == (0.0, 10.0) and "tempo" not in first


def test_pairs_and_changes_come_in_their_shares_and_change_one_thing() -> None:
    dice = random.Random(0)

    varied = [scores.vary(PLAN, 0.3, 0.4, dice) for _ in range(400)]

    assert 90 < sum(bool(plans[0].second) for plans in varied) < 150
    changed = [plans for plans in varied if len(plans) == 2]
    assert 130 < len(changed) < 190
    for first, second in changed:
        names = ("family", "tempo", "dynamics")
        assert sum(getattr(first, name) != getattr(second, name) for name in names) == 1
    assert scores.vary(PLAN, 0.0, 0.0, dice) == (PLAN,)


def test_families_of_another_gain_never_meet() -> None:
    synth = replace(PLAN, family="synth", programs=(80,))
    dice = random.Random(0)

    for plans in (scores.vary(synth, 0.5, 0.5, dice) for _ in range(50)):
        assert {plan.family for plan in plans} == {"synth"} and not plans[0].second


def test_a_chorale_of_the_corpus_has_four_parts_in_order_of_height() -> None:
    pytest.importorskip("music21", reason="music21 is not installed: no corpus to read")

    score = scores.read_score("bach/bwv269.mxl", "Johann Sebastian Bach")

    assert score is not None
    assert (len(score.parts), score.bar, score.pickup) == (4, 3.0, 1.0)
    assert (score.metre, score.key) == ("3/4", (7, "major"))
    means = [sum(note.pitch for note in part) / len(part) for part in score.parts]
    assert means == sorted(means, reverse=True)


def test_a_clip_is_named_relative_to_its_folder() -> None:
    row = scores.make_row(Path("some/folder/0000-tune.flac"), TUNE, "test", clip_of(PLAN))

    assert row["path"] == "0000-tune.flac"
