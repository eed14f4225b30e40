"""Sound files in, mono waveform blocks out: the first step of every road.

`read_blocks` is the one decoder of the project. It streams, so a twenty-minute file never stands in
memory as a whole, and it checks what it reads: length, silence, damage. What hears the blocks is
the business of `musilingo_core.encoders`.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from musilingo_core.errors import AudioTooLong, AudioTooShort, SilentAudio, UnreadableAudio

Waveform = npt.NDArray[np.float32]

BLOCK_S = 10.0  # seconds decoded at a time
LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000  # Hz, source sample rates accepted
MOST_CHANNELS = 32
LOUDEST = 8.0  # sample value; above it a float file is not scaled to −1 … 1

UNKNOWN_LENGTH = 2**62  # frames; libsndfile's word for “no idea” lies above

# What FFmpeg may open. A playlist format here would let an upload name other files of the server.
FFMPEG_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,ogg,mp3,flac,wav,aiff,asf,caf"


@dataclass(frozen=True)
class AudioLimits:
    """What a sound file must be like to be heard.

    Attributes:
        min_duration_s: Shortest clip, seconds.
        max_duration_s: Longest clip, seconds.
        silence_dbfs: A file whose peak lies under this is digital silence (0 dBFS is full scale).
    """

    min_duration_s: float = 0.5
    max_duration_s: float = 20 * 60.0
    silence_dbfs: float = -80.0


@dataclass(frozen=True)
class _Source:
    """An opened file: blocks of (samples, channels) float32 at `sample_rate` Hz."""

    sample_rate: int
    channels: int
    declared_s: float | None  # length the header claims; None when it claims none
    exact: bool  # a file shorter than it claims is damaged
    blocks: Iterator[Waveform]


class _CannotRead(Exception):
    """One decoder's reason; collected into `UnreadableAudio`."""


def read_blocks(
    path: str | Path,
    sample_rate: int,
    limits: AudioLimits = AudioLimits(),
    on_progress: Callable[[float], None] | None = None,
) -> Iterator[Waveform]:
    """Decodes a file to mono blocks at the wanted rate.

    WAV, FLAC, MP3, OGG and OPUS go through libsndfile, everything else (M4A, AAC, WEBM) through
    FFmpeg; channels are averaged and the rate is changed by soxr. A file is judged while it is
    read, so the errors of the last three kinds come with the last block.

    Args:
        path: The file.
        sample_rate: Wanted rate, Hz.
        limits: Shortest and longest length, and what counts as silence.
        on_progress: Called with the fraction read, 0 to 1, after each block; of the longest length
            allowed where a file does not say its own.

    Yields:
        float32 arrays of shape (samples,), about `BLOCK_S` seconds each, range about [−1, 1].

    Raises:
        UnreadableAudio: No decoder can read the file, or it is damaged.
        AudioTooLong: As soon as the header or the blocks show it.
        AudioTooShort: The file is shorter than the limit.
        SilentAudio: No sample reaches `limits.silence_dbfs`.
    """
    import soxr

    path = Path(path)
    source = _open(path)
    if source.declared_s is not None and source.declared_s > limits.max_duration_s:
        raise AudioTooLong(path.name, source.declared_s, limits.max_duration_s)
    resampler = soxr.ResampleStream(source.sample_rate, sample_rate, 1, dtype="float32")
    samples, peak, mono_peak = 0, 0.0, 0.0
    for block in _reporting_damage(path, source):
        mono = block.mean(axis=1, dtype=np.float32)
        samples += len(mono)
        peak = max(peak, float(np.abs(block).max(initial=0.0)))
        mono_peak = max(mono_peak, float(np.abs(mono).max(initial=0.0)))
        if not np.isfinite(mono).all() or peak > LOUDEST:
            raise UnreadableAudio(path.name, ["its samples do not lie between −1 and 1"])
        duration_s = samples / source.sample_rate
        if duration_s > limits.max_duration_s:
            raise AudioTooLong(path.name, duration_s, limits.max_duration_s)
        if on_progress:
            on_progress(min(duration_s / (source.declared_s or limits.max_duration_s), 1.0))
        yield resampler.resample_chunk(mono)
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
    _check_whole(path.name, samples / source.sample_rate, peak, mono_peak, limits)


def load_audio(path: str | Path, sample_rate: int, limits: AudioLimits = AudioLimits()) -> Waveform:
    """Decodes a whole file at once: `read_blocks`, joined.

    Returns:
        float32 of shape (samples,), mono, at `sample_rate` Hz.

    Raises:
        AudioError: As `read_blocks`.
    """
    return np.concatenate(list(read_blocks(path, sample_rate, limits)))


def _check_whole(
    name: str, duration_s: float, peak: float, mono_peak: float, limits: AudioLimits
) -> None:
    if duration_s < limits.min_duration_s:
        raise AudioTooShort(name, duration_s, limits.min_duration_s)
    if _dbfs(peak) < limits.silence_dbfs:
        raise SilentAudio(name, _dbfs(peak))
    if _dbfs(mono_peak) < limits.silence_dbfs:
        raise UnreadableAudio(name, ["its channels cancel each other out when mixed to mono"])


def _dbfs(peak: float) -> float:
    """A sample value in decibels below full scale; −∞ for zero."""
    return 20 * math.log10(peak) if peak else -math.inf


def _open(path: Path) -> _Source:
    """Tries each decoder in turn."""
    if not path.is_file():
        raise UnreadableAudio(path.name, ["there is no such file"])
    if path.stat().st_size == 0:
        raise UnreadableAudio(path.name, ["the file is empty"])
    reasons = []
    for decoder in (_open_with_libsndfile, _open_with_ffmpeg):
        try:
            source = decoder(path)
        except _CannotRead as error:
            reasons.append(str(error))
            continue
        if source.channels > MOST_CHANNELS:
            raise UnreadableAudio(path.name, [f"it has {source.channels} channels"])
        if not LOWEST_RATE <= source.sample_rate <= HIGHEST_RATE:
            raise UnreadableAudio(
                path.name, [f"its sample rate of {source.sample_rate} Hz is not 8 to 192 kHz"]
            )
        return source
    raise UnreadableAudio(path.name, reasons)


def _reporting_damage(path: Path, source: _Source) -> Iterator[Waveform]:
    """The source's blocks; a file that breaks off says where."""
    seconds = 0.0
    try:
        for block in source.blocks:
            seconds += len(block) / source.sample_rate
            yield block
    except _CannotRead as error:
        where = f"it is damaged somewhere after {seconds:.1f} s: {error}"
        raise UnreadableAudio(path.name, [where]) from error
    if source.exact and source.declared_s and seconds < 0.99 * source.declared_s:
        where = f"it is damaged: it breaks off after {seconds:.1f} of {source.declared_s:.1f} s"
        raise UnreadableAudio(path.name, [where])


def _open_with_libsndfile(path: Path) -> _Source:
    import soundfile

    # Not by name: from an extension libsndfile would take text for headerless sound.
    try:
        handle = path.open("rb")
    except OSError as error:
        raise _CannotRead(_first_line(error).lower()) from error
    try:
        file = soundfile.SoundFile(handle.fileno(), closefd=False)
    except soundfile.LibsndfileError as error:
        handle.close()
        raise _CannotRead(f"libsndfile: {_first_line(error)}") from error
    if not _says_its_length(path, file):
        file.close()
        handle.close()
        raise _CannotRead("libsndfile: its header says no length")

    def blocks() -> Iterator[Waveform]:
        size = _block_size(file.samplerate, file.channels)
        with handle, file:
            while True:
                try:
                    block: Waveform = file.read(size, dtype="float32", always_2d=True)
                except soundfile.LibsndfileError as error:
                    raise _CannotRead(_first_line(error)) from error
                if not len(block):
                    return
                yield block

    exact = file.format in {"WAV", "WAVEX", "FLAC", "AIFF"}
    declared_s = file.frames / file.samplerate
    return _Source(file.samplerate, file.channels, declared_s, exact, blocks())


def _says_its_length(path: Path, file: Any) -> bool:
    """Whether libsndfile knows where the file ends; where it does not, FFmpeg finds out.

    A file written to a pipe says nothing. The length of an MP3 without a tag is guessed from its
    first frames, and libsndfile would stop there.
    """
    if not 0 < file.frames < UNKNOWN_LENGTH:
        return False
    if file.format != "MP3":
        return True
    declared_s, found_s = file.frames / file.samplerate, _seconds_of_packets(path)
    return found_s is None or abs(found_s - declared_s) < 0.2 + 0.01 * declared_s


def _seconds_of_packets(path: Path) -> float | None:
    """Length of all packets of a file, none decoded; None where FFmpeg has no idea."""
    import av

    try:
        with _ffmpeg_container(path) as container:
            stream = container.streams.audio[0]
            return float(sum(p.duration or 0 for p in container.demux(stream)) * stream.time_base)
    except (av.FFmpegError, _CannotRead, IndexError):
        return None


def _ffmpeg_container(path: Path) -> Any:
    import av

    try:
        return av.open(
            f"file:{path.resolve()}",  # a name with a colon is no protocol
            options={"format_whitelist": FFMPEG_FORMATS, "protocol_whitelist": "file"},
            metadata_errors="replace",
        )
    except (av.FFmpegError, OSError, UnicodeError) as error:
        raise _CannotRead(f"FFmpeg: {_first_line(error)}") from error


def _open_with_ffmpeg(path: Path) -> _Source:
    import av

    container = _ffmpeg_container(path)
    streams = container.streams.audio
    if streams and streams[0].codec_context is None:
        container.close()
        raise _CannotRead("FFmpeg: it has no decoder for the way its sound is packed")
    if not streams or not streams[0].rate:
        container.close()
        raise _CannotRead("FFmpeg: it holds no sound")
    rate, channels = streams[0].rate, streams[0].channels
    guessed = container.format.name in {"aac", "mp3"}  # from the bit rate of the first frames
    known = container.duration and not guessed
    declared_s = container.duration / av.time_base if known else None
    return _Source(rate, channels, declared_s, False, _ffmpeg_blocks(container, rate))


def _ffmpeg_blocks(container: Any, rate: int) -> Iterator[Waveform]:
    """Decoded frames at one rate, gathered to blocks; channels may change from block to block."""
    waiting: list[Waveform] = []
    with container:
        for piece in _ffmpeg_pieces(container, rate):
            channels = waiting[0].shape[1] if waiting else piece.shape[1]
            full = sum(map(len, waiting)) >= _block_size(rate, channels)
            if waiting and (full or piece.shape[1] != channels):
                yield np.concatenate(waiting)
                waiting = []
            waiting.append(piece)
        if waiting:
            yield np.concatenate(waiting)


def _ffmpeg_pieces(container: Any, rate: int) -> Iterator[Waveform]:
    """Decoded frames as (samples, channels) float32, each at the stream's first rate."""
    import av

    forms: dict[tuple[str, str, int], Any] = {}  # a stream may change its form midway
    frames = container.decode(audio=0)
    while True:
        try:
            frame = next(frames, None)
            if frame is None:
                for resampler in forms.values():
                    yield from (part.to_ndarray().T for part in resampler.resample(None))
                return
            form = (frame.format.name, frame.layout.name, frame.sample_rate)
            if form not in forms:
                forms[form] = av.AudioResampler(format="fltp", layout=frame.layout, rate=rate)
            yield from (part.to_ndarray().T for part in forms[form].resample(frame))
        except (av.FFmpegError, ValueError) as error:
            raise _CannotRead(_first_line(error)) from error


def _block_size(rate: int, channels: int) -> int:
    """Samples a block, so that its bytes stay the same however many channels there are."""
    return max(1, int(BLOCK_S * rate / channels))


def _first_line(error: BaseException) -> str:
    """A library's message without paths and line breaks."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    text = text.splitlines()[0]
    return text.rsplit(": ", 1)[-1].rstrip(".").strip("'\"")
