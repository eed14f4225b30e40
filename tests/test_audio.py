from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from musilingo_core.audio import AudioLimits, Waveform, load_audio, read_blocks
from musilingo_core.errors import (
    AudioError,
    AudioTooLong,
    AudioTooShort,
    SilentAudio,
    UnreadableAudio,
)
from tests.conftest import tone

Writer = Callable[..., Path]


def spoken_hertz(waveform: np.ndarray, rate: int) -> float:  # type: ignore[type-arg]
    """The strongest frequency."""
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(np.argmax(spectrum) * rate / len(waveform))


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg", "a.opus"])
def test_every_libsndfile_format_gives_the_same_tone(wav: Writer, name: str) -> None:
    rate = 48_000
    if name.endswith(".opus"):
        path = wav(tone(2, rate), rate, "a.ogg", "OPUS").rename(wav().parent / name)
    else:
        path = wav(tone(2, rate), rate, name)
    waveform = load_audio(path, 16_000)
    assert waveform.dtype == np.float32
    assert len(waveform) / 16_000 == pytest.approx(2, abs=0.06)
    assert spoken_hertz(waveform[4000:28_000], 16_000) == pytest.approx(440, abs=2)


def write_coded(
    path: Path,
    codec: str,
    waveform: Waveform,
    rate: int,
    layout: str = "mono",
    bit_rate: int | None = None,
    **options: Any,
) -> None:
    """A file that only FFmpeg reads, the same waveform in each channel."""
    channels = 2 if layout == "stereo" else 1
    with av.open(str(path), "w", **options) as container:
        container.metadata["title"] = "TITLE-MARK"
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if bit_rate:
            stream.bit_rate = bit_rate
        samples = np.stack([waveform] * channels)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate = rate
        fifo = av.AudioFifo()
        fifo.write(frame)
        while chunk := fifo.read(960):
            container.mux(stream.encode(chunk))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("name", "codec", "rate"), [("a.m4a", "aac", 44_100), ("a.webm", "libopus", 48_000)]
)
def test_ffmpeg_formats_give_the_same_tone(
    tmp_path: Path, name: str, codec: str, rate: int
) -> None:
    path = tmp_path / name
    write_coded(path, codec, tone(2, rate), rate, "stereo")
    waveform = load_audio(path, 16_000)
    assert len(waveform) / 16_000 == pytest.approx(2, abs=0.1)
    assert spoken_hertz(waveform[4000:28_000], 16_000) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_integers_and_floats_come_out_at_the_same_level(wav: Writer, subtype: str) -> None:
    waveform = load_audio(wav(subtype=subtype), 16_000)
    assert np.abs(waveform).max() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_are_averaged(wav: Writer, channels: int) -> None:
    samples = np.stack([tone(1)] + [np.zeros(16_000, np.float32)] * (channels - 1), axis=1)
    waveform = load_audio(wav(samples), 16_000)
    assert waveform.shape == (16_000,)
    assert np.abs(waveform).max() == pytest.approx(0.5 / channels, abs=0.01)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 96_000, 192_000])
def test_any_rate_keeps_length_and_pitch(wav: Writer, rate: int) -> None:
    waveform = load_audio(wav(tone(1.5, rate), rate), 16_000)
    assert len(waveform) == pytest.approx(24_000, abs=2)
    assert spoken_hertz(waveform[2000:22_000], 16_000) == pytest.approx(440, abs=2)


def test_streaming_gives_the_samples_of_one_pass(wav: Writer) -> None:
    import soxr

    samples = np.random.default_rng(0).standard_normal(44_100 * 25).astype(np.float32) / 10
    blocks = list(read_blocks(wav(samples, 44_100, subtype="FLOAT"), 16_000))
    whole = soxr.resample(samples, 44_100, 16_000)
    assert len(blocks) > 2
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-4)


def test_progress_rises_to_one(wav: Writer) -> None:
    seen: list[float] = []
    list(read_blocks(wav(tone(25)), 16_000, on_progress=seen.append))
    assert seen == sorted(seen) and seen[-1] == 1.0 and len(seen) == 3


def test_silence_is_refused_and_a_whisper_is_not(wav: Writer) -> None:
    with pytest.raises(SilentAudio, match="silent"):
        load_audio(wav(tone(1, gain=1e-5), subtype="FLOAT"), 16_000)
    with pytest.raises(SilentAudio, match="loudest sample is zero"):
        load_audio(wav(tone(1, gain=0)), 16_000)
    assert len(load_audio(wav(tone(1, gain=2e-4), subtype="FLOAT"), 16_000)) == 16_000


def test_a_tenth_of_a_second_is_too_short(wav: Writer) -> None:
    with pytest.raises(AudioTooShort, match=r"0\.10 s"):
        load_audio(wav(tone(0.1)), 16_000)


def test_half_a_second_is_long_enough(wav: Writer) -> None:
    assert len(load_audio(wav(tone(0.5)), 16_000)) == 8000
    with pytest.raises(AudioTooShort):
        load_audio(wav(tone(0.49)), 16_000)


def test_the_limits_are_those_of_the_documents() -> None:
    assert AudioLimits() == AudioLimits(0.5, 20 * 60, -80)


def test_a_long_file_is_refused_before_it_is_decoded(wav: Writer) -> None:
    path, seen = wav(tone(30)), list[float]()
    with pytest.raises(AudioTooLong, match=r"limit is 0\.2 minutes"):
        list(read_blocks(path, 16_000, AudioLimits(max_duration_s=12), seen.append))
    assert not seen


@pytest.mark.parametrize("content", [b"", b"These are words, not music.\n" * 200, b"\0" * 5000])
@pytest.mark.parametrize("name", ["a.mp3", "a.wav", "a.m4a", "a.raw", "a"])
def test_what_is_no_music_is_named_with_reasons(tmp_path: Path, content: bytes, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AudioError) as caught:
        load_audio(path, 16_000)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableAudio, match="no such file"):
        load_audio(tmp_path / "gone.wav", 16_000)


def test_a_flac_that_breaks_off_says_where(wav: Writer) -> None:
    path = wav(np.random.default_rng(0).uniform(-0.5, 0.5, 16_000 * 30), name="a.flac")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableAudio, match="damaged"):
        load_audio(path, 16_000)


def test_samples_that_are_not_numbers_are_refused(wav: Writer) -> None:
    samples = tone(1)
    samples[100] = np.nan
    with pytest.raises(UnreadableAudio, match="between −1 and 1"):
        load_audio(wav(samples, subtype="FLOAT"), 16_000)


def test_samples_far_out_of_range_are_refused(wav: Writer) -> None:
    for gain in (1e30, 20_000.0):
        with pytest.raises(UnreadableAudio, match="between −1 and 1"):
            load_audio(wav(tone(1) * np.float32(gain), subtype="FLOAT"), 16_000)


def test_channels_that_cancel_are_said_to(wav: Writer) -> None:
    with pytest.raises(UnreadableAudio, match="cancel"):
        load_audio(wav(np.stack([tone(1), -tone(1)], axis=1)), 16_000)


def test_blocks_stay_small_however_many_channels(wav: Writer) -> None:
    wide = wav(np.zeros((20_000, 16), np.float32) + 0.1)
    assert max(map(len, read_blocks(wide, 16_000))) <= 10_000
    with pytest.raises(UnreadableAudio, match="40 channels"):
        load_audio(wav(np.ones((8000, 40), np.float32), name="b.wav"), 16_000)


def encode_aac(path: Path, pieces: list[tuple[int, str]]) -> None:
    """An AAC stream of one second for each (rate, layout)."""
    content = b""
    for number, (rate, layout) in enumerate(pieces):
        part = path.with_name(f"part{number}.aac")
        write_coded(part, "aac", tone(1, rate), rate, layout, format="adts")
        content += part.read_bytes()
    path.write_bytes(content)


def test_a_stream_that_changes_midway_keeps_its_speed(tmp_path: Path) -> None:
    encode_aac(tmp_path / "a.aac", [(44_100, "mono"), (44_100, "stereo"), (22_050, "mono")])
    assert len(load_audio(tmp_path / "a.aac", 16_000)) / 16_000 == pytest.approx(3, abs=0.3)


def test_a_name_with_a_colon_is_no_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_aac(tmp_path / "plain.aac", [(44_100, "mono")])
    (tmp_path / "plain.aac").rename(tmp_path / "Suite: 1. Prelude.aac")
    monkeypatch.chdir(tmp_path)
    assert len(load_audio("Suite: 1. Prelude.aac", 16_000)) > 12_000


def test_tags_in_any_alphabet_are_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    write_coded(path, "aac", tone(1, 44_100), 44_100)
    content = path.read_bytes()
    assert b"TITLE-MARK" in content
    path.write_bytes(content.replace(b"TITLE-MARK", b"\xe9\xff\xfe\xe8\xe0MARK\xe9"))
    assert len(load_audio(path, 16_000)) > 12_000


def test_a_codec_without_a_decoder_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    write_coded(path, "aac", tone(1, 44_100), 44_100)
    content = path.read_bytes()
    assert content.count(b"mp4a") == content.count(b"esds") == 1
    # Without its descriptor the codec is known by these four letters alone.
    path.write_bytes(content.replace(b"mp4a", b"mha1").replace(b"esds", b"free"))
    with av.open(str(path)) as container:
        assert container.streams.audio[0].codec_context is None
    with pytest.raises(UnreadableAudio, match="no decoder"):
        load_audio(path, 16_000)


def test_a_flac_from_a_pipe_says_no_length_and_is_heard(wav: Writer) -> None:
    path = wav(tone(2), name="a.flac")
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # total samples: the low 36 bits of bytes 21 to 25 of STREAMINFO
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert len(load_audio(path, 16_000)) == pytest.approx(32_000, abs=10)
    shares: list[float] = []  # without a length they are of the longest allowed
    list(read_blocks(path, 16_000, AudioLimits(max_duration_s=8), shares.append))
    assert shares and shares[-1] == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("rates", [(320_000, 32_000), (32_000, 320_000)])
def test_an_mp3_whose_first_frames_mislead_is_heard_to_the_end(
    tmp_path: Path, rates: tuple[int, int]
) -> None:
    content = b""
    for bit_rate in rates:
        part = tmp_path / f"{bit_rate}.mp3"
        plain = {"write_xing": "0", "id3v2_version": "0"}
        write_coded(part, "mp3", tone(20, 44_100), 44_100, "mono", bit_rate, options=plain)
        content += part.read_bytes()
    (tmp_path / "a.mp3").write_bytes(content)
    waveform = load_audio(tmp_path / "a.mp3", 16_000, AudioLimits(max_duration_s=45))
    assert len(waveform) / 16_000 == pytest.approx(40, abs=0.3)


@pytest.mark.parametrize("name", ["notes.vox", "notes.au", "notes.raw", "notes.mp3"])
def test_words_are_no_music_whatever_they_are_called(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"These are words. " * 9000)
    with pytest.raises(UnreadableAudio) as caught:
        load_audio(tmp_path / name, 16_000)
    assert str(tmp_path) not in str(caught.value)  # a visitor need not know the server's folders


def test_a_playlist_cannot_name_other_files(wav: Writer, tmp_path: Path) -> None:
    secret = wav(name="secret.wav")
    playlist = tmp_path / "list.m4a"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{secret}\n#EXT-X-ENDLIST\n")
    with pytest.raises(UnreadableAudio):
        load_audio(playlist, 16_000)
    playlist.write_text(f"ffconcat version 1.0\nfile {secret.name}\n")
    with pytest.raises(UnreadableAudio) as caught:
        load_audio(playlist, 16_000)
    assert str(tmp_path) not in str(caught.value)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_files_give_samples_or_an_audio_error(tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["a.wav", "a.flac", "a.ogg", "a.mp3"]))
    path = tmp_path / name
    soundfile.write(path, tone(0.8), 16_000)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        waveform = load_audio(path, 16_000)
    except AudioError:
        return
    assert waveform.dtype == np.float32 and np.isfinite(waveform).all()
