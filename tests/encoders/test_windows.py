import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musilingo_core.audio import Waveform
from musilingo_core.encoders.windows import elastic_windows, fixed_windows


def in_blocks(samples: Waveform, sizes: list[int]) -> list[Waveform]:
    edges = np.cumsum(sizes)
    return [np.asarray(part) for part in np.split(samples, edges[edges < len(samples)])]


song_lengths = st.integers(1, 500)
block_sizes = st.lists(st.integers(1, 120), max_size=12)


@given(song_lengths, block_sizes)
def test_fixed_windows_hear_every_sample_and_nothing_else(length: int, sizes: list[int]) -> None:
    song = np.arange(1, length + 1, dtype=np.float32)
    windows = list(fixed_windows(in_blocks(song, sizes), size=50, hop=45))
    assert all(len(samples) == 50 for _, samples in windows)
    if length >= 50:
        assert windows[-1][0] + 50 == length
        for start, samples in windows:
            np.testing.assert_array_equal(samples, song[start : start + 50])
    assert set(np.concatenate([samples for _, samples in windows])) == set(song)


def test_a_song_of_one_window_is_one_window() -> None:
    assert [start for start, _ in fixed_windows([np.ones(50, np.float32)], 50, 45)] == [0]


def test_a_short_song_is_repeated_and_not_padded() -> None:
    [(start, samples)] = fixed_windows([np.array([1, 2, 3], np.float32)], size=8, hop=8)
    assert start == 0
    np.testing.assert_array_equal(samples, [1, 2, 3, 1, 2, 3, 1, 2])


@given(song_lengths, block_sizes)
def test_elastic_windows_end_with_the_song(length: int, sizes: list[int]) -> None:
    song = np.arange(1, length + 1, dtype=np.float32)
    windows = list(elastic_windows(in_blocks(song, sizes), size=55, hop=50, shortest=10))
    assert [start for start, _ in windows] == [50 * i for i in range(len(windows))]
    assert set(np.concatenate([samples for _, samples in windows])) == set(song)
    if length >= 10:
        start, samples = windows[-1]
        assert start + len(samples) == length
    assert all(len(samples) >= 10 for _, samples in windows)
    assert all(len(samples) == 55 for _, samples in windows[:-1])


@pytest.mark.parametrize(
    ("length", "expected"),
    [(55, [55]), (59, [59]), (60, [55, 10]), (100, [55, 50]), (109, [55, 59])],
)
def test_a_short_rest_joins_the_window_before_it(length: int, expected: list[int]) -> None:
    windows = elastic_windows([np.ones(length, np.float32)], size=55, hop=50, shortest=10)
    assert [len(samples) for _, samples in windows] == expected
