from collections.abc import Callable

import pytest

from musilingo_core.data.aspects import (
    AGAINST_CAPTION,
    CONFLICT,
    UNNAMED,
    Finding,
    find_genres,
    find_instruments,
    find_moods,
    find_tempo,
    find_voices,
)


def known(*words: str) -> Finding:
    return Finding(words)


@pytest.mark.parametrize(
    ("aspects", "caption", "found"),
    [
        (["Moderate  tempo"], "", known("medium")),
        (["memdium tempo"], "The tempo is medium.", known("medium")),
        (["fast tempo", "uptempo"], "The tempo of this song is fast.", known("fast")),
        (["slow to medium tempo"], "A medium tempo.", known("slow to medium")),
        (["medium fast tempo"], "The tempo is medium fast.", known("medium to fast")),
        (["tempo changes"], "", known("changing tempo")),
        (["slow tempo", "fast tempo"], "", CONFLICT),
        (["slow tempo"], "The song is fast tempo.", AGAINST_CAPTION),
        (["uptempo hi hats", "rising"], "", UNNAMED),
    ],
)
def test_a_tempo_is_known_only_where_all_agree(
    aspects: list[str], caption: str, found: Finding
) -> None:
    assert find_tempo(aspects, caption) == found


@pytest.mark.parametrize(
    ("find", "aspects", "found"),
    [
        (find_moods, ["happy mood", "calming", "calm", "low quality"], known("happy", "calming")),
        (find_moods, ["suspense", "sad atmosphere"], known("suspenseful", "sad")),
        (find_moods, ["happy", "sad"], CONFLICT),
        (find_moods, ["relaxing music", "aggressive"], CONFLICT),
        (find_moods, ["loud", "mono"], UNNAMED),
        (find_genres, ["rock", "hard rock", "hip hop song"], known("hard rock", "hip-hop")),
        (find_genres, ["r&b/soul", "christmas music"], known("R&B", "soul", "Christmas music")),
        (find_genres, ["drum & bass"], known("drum and bass")),
        (find_genres, ["rock drumming", "kids", "piano song"], UNNAMED),
    ],
)
def test_moods_and_genres_are_recognised_by_vocabulary(
    find: Callable[[list[str]], Finding], aspects: list[str], found: Finding
) -> None:
    assert find(aspects) == found


@pytest.mark.parametrize(
    ("aspects", "found"),
    [
        (["mellow piano melody", "guitars", "e-guitar"], known("piano", "electric guitar")),
        (["guitar", "groovy bass guitar"], known("guitar", "bass guitar")),
        (
            ["boomy bass", "e-bass", "steel drums", "drums"],
            known("electric bass", "steel drums", "drums"),
        ),
        (["wide synth pad chords", "synth bass"], known("synth pads", "synth bass")),
        (["synth keys melody", "hi-hat cymbal"], known("synthesizer", "hi-hats", "cymbals")),
        (
            ["no piano", "drum & bass", "flute like instrument", "organ-like", "bass singer"],
            UNNAMED,
        ),
        (["guitar effects pedal", "guitar tuning", "acapella"], UNNAMED),
        (["no percussion", "tambourine"], CONFLICT),
        (["no percussion", "violin"], known("violin")),
        (["no instruments", "piano"], CONFLICT),
        (["single instrument", "piano", "flute"], CONFLICT),
    ],
)
def test_instruments_are_named_as_closely_as_the_aspects_do(
    aspects: list[str], found: Finding
) -> None:
    assert find_instruments(aspects) == found


@pytest.mark.parametrize(
    ("aspects", "caption", "found"),
    [
        (["male voice", "male singer", "flat male vocal"], "", known("a male singer")),
        (
            ["passionate female vocal", "backup singers"],
            "",
            known("female vocals", "backing vocals"),
        ),
        (["backing vocals", "male backing voice"], "", known("male backing vocals")),
        (
            ["male voices singing", "male voice rapping"],
            "",
            known("male voices singing", "a male voice rapping"),
        ),
        (["choir", "female vocal sample", "male laughing"], "", known("a choir")),
        (["no singer", "instrumental"], "", known("no singer")),
        (["no voices"], "There are no voices in this song.", known("no voices")),
        (["instrumental"], "The music is instrumental.", known("instrumental")),
        (["instrumental", "singing bowls"], "", known("instrumental")),
        (["instrumental", "vocal riff"], "", CONFLICT),
        (["instrumental"], "A man sings.", AGAINST_CAPTION),
        (["female vocal"], "A male vocal sings.", AGAINST_CAPTION),
        (["people talking"], "", UNNAMED),
    ],
)
def test_voices_are_told_apart_by_sex_and_use(
    aspects: list[str], caption: str, found: Finding
) -> None:
    assert find_voices(aspects, caption) == found
