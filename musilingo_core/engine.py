"""`ChatEngine`: hears songs, answers questions about them.

Everything that talks to the model goes through here: the page, the command line, evaluation. The
engine keeps no conversation; messages carry all there is to know, songs by the id of their clip.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from musilingo_core.audio import AudioLimits, Waveform, read_blocks
from musilingo_core.decoder import Decoder
from musilingo_core.encoders import MusicEncoder, encode, fingerprint
from musilingo_core.errors import (
    AudioTooLong,
    ClipNotFound,
    ConfigError,
    PromptError,
    UnreadableAudio,
)
from musilingo_core.features import Clip, FeatureCache, clip_id
from musilingo_core.generation import TextStream, decode, decode_together
from musilingo_core.likelihood import mean_log_likelihoods
from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.models import Source
from musilingo_core.placement import SPREAD, Placement, find_device, find_dtype
from musilingo_core.prefix_cache import PrefixCache, SaidTokens, position_keys
from musilingo_core.processing import MusiLingoProcessor
from musilingo_core.prompt import (
    Message,
    Prompt,
    assistant,
    check,
    with_options,
    without_clips,
    without_oldest,
)
from musilingo_core.sampling import Sampling
from musilingo_core.storage import OnStatus, cache_folder
from musilingo_core.weights import load_model

# Kinds of weights that make tokens: whether they are packed, and bits of all the language model's.
WEIGHTS: dict[str, tuple[bool | None, int | None]] = {
    "auto": (None, None),
    "packed": (True, None),
    "plain": (False, None),
    "8bit": (False, 8),
    "4bit": (False, 4),
}


class Reply(Iterator[str]):
    """A reply being made: pieces of text whose sum only grows.

    Each `next` computes at most as many tokens as it takes to get a certain piece of text; `close`
    ends the computing for good.

    Attributes:
        prompt_tokens: Tokens of the prompt, music included.
        reused_tokens: How many of them need not be computed, for an earlier prompt began with them.
        new_tokens: Tokens made so far.
        dropped_turns: Oldest turns left out of the prompt for want of room.
        first_token_s: Seconds from the question to the first token; None before it.
    """

    def __init__(
        self,
        prompt: Prompt,
        tokens: Iterator[int],
        stream: TextStream,
        begun: float,
        reused_tokens: int = 0,
    ) -> None:
        self.prompt_tokens = len(prompt.ids)
        self.reused_tokens = reused_tokens
        self.new_tokens = 0
        self.dropped_turns = prompt.dropped_turns
        self.first_token_s: float | None = None
        self._pieces = self._make(tokens, stream, begun)

    def _make(self, tokens: Iterator[int], stream: TextStream, begun: float) -> Iterator[str]:
        for token in tokens:
            self.new_tokens += 1
            if self.first_token_s is None:
                self.first_token_s = time.perf_counter() - begun
            if piece := stream.push(token):
                yield piece
            if stream.stopped:
                return
        if piece := stream.finish():
            yield piece

    def __iter__(self) -> "Reply":
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """Stops computing; more text will not come."""
        self._pieces.close()  # type: ignore[attr-defined]

    def text(self) -> str:
        """The whole reply at once."""
        return "".join(self)


@dataclass(frozen=True)
class Said:
    """A whole reply.

    Attributes:
        text: Its words.
        finished: Whether it ended by itself; False where it was cut at its longest.
    """

    text: str
    finished: bool


class ChatEngine:
    """A loaded model that hears and answers. Safe between threads.

    Args:
        model: The model, in evaluation mode, where it is to run.
        processor: Its processor.
        name: What to call it.
        cache: Where features are kept; in memory only by default.
        limits: What sound files are accepted.
        licences: (part, licence) of what it is made of.
        prefixes: Where states of earlier prompts are kept.
        decoder: Makes tokens; one of its own by default.
    """

    def __init__(
        self,
        model: MusiLingoForConditionalGeneration,
        processor: MusiLingoProcessor,
        name: str = "model",
        cache: FeatureCache | None = None,
        limits: AudioLimits = AudioLimits(),
        licences: Sequence[tuple[str, str]] = (),
        prefixes: PrefixCache | None = None,
        decoder: Decoder | None = None,
    ) -> None:
        self.model, self.processor, self.name = model, processor, name
        self.cache = cache if cache is not None else FeatureCache()
        self.limits, self.licences = limits, tuple(licences)
        self.prefixes = prefixes if prefixes is not None else PrefixCache()
        self.said = SaidTokens()
        self.decoder = decoder if decoder is not None else Decoder(model.language_model)
        self.fingerprint = fingerprint(model.audio_tower)
        self._encoding: AbstractContextManager[Any] = threading.Lock()

    @property
    def context_tokens(self) -> int:
        """Tokens the language model can hold, prompt and reply together."""
        return int(self.model.config.text_config.max_position_embeddings)

    def encode(self, path: str | Path, on_progress: Callable[[float], None] | None = None) -> Clip:
        """Hears a song, or remembers it: the same bytes are decoded and encoded once.

        Args:
            path: A sound file.
            on_progress: Called with the fraction heard, 0 to 1, from this thread.

        Raises:
            AudioError: The file cannot be used; says why.
        """
        key = self.clip_id(path)
        try:
            clip = self.cache.get(key)
        except ClipNotFound:
            # One song at a time: memory stays flat, and a second asker finds it kept.
            with self._encoding:
                clip = self.cache.get_or(key, lambda: self._hear(key, path, on_progress))
        if clip.duration_s > self.limits.max_duration_s:  # heard when the limit was another
            raise AudioTooLong(Path(path).name, clip.duration_s, self.limits.max_duration_s)
        return clip

    def _hear(
        self, key: str, path: str | Path, on_progress: Callable[[float], None] | None
    ) -> Clip:
        return hear(self.model.audio_tower, path, self.limits, on_progress, self.fingerprint, key)

    def clip_id(self, path: str | Path) -> str:
        """The id of a sound file's clip.

        Raises:
            UnreadableAudio: There is no such file, or it may not be read.
        """
        try:
            return clip_id(path, self.fingerprint)
        except FileNotFoundError as error:
            raise UnreadableAudio(Path(path).name, ["there is no such file"]) from error
        except OSError as error:
            raise UnreadableAudio(Path(path).name, [str(error.strerror).lower()]) from error

    def is_cached(self, path: str | Path) -> bool:
        """Whether `encode` would only have to remember."""
        return self.clip_id(path) in self.cache

    def clip(self, key: str) -> Clip:
        """A clip by id.

        Raises:
            ClipNotFound: It is no longer kept.
        """
        return self.cache.get(key)

    def reply(self, messages: Sequence[Message], sampling: Sampling = Sampling()) -> Reply:
        """Begins the answer to the last message.

        Args:
            messages: The conversation; see `musilingo_core.prompt`.
            sampling: How to choose words.

        Raises:
            PromptError: The conversation cannot be rendered or is too long.
            ClipNotFound: A song is no longer kept.
        """
        begun = time.perf_counter()
        prompt = self._prompt(messages, sampling)
        keys = position_keys(prompt, self.processor.form)
        tokens = self._tokens(prompt, keys, sampling)
        known = self.prefixes.longest(keys[:-1])
        return Reply(prompt, tokens, self._stream(), begun, len(known) if known else 0)

    def replies(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling = Sampling()
    ) -> list[Said]:
        """Whole answers to the last messages of some conversations, computed in one batch.

        They are those that `reply` gives one after another, but for rounding, sooner: for
        evaluation. What the conversations begin with in common is computed once.

        Args:
            conversations: As many as fit into memory together.
            sampling: As for `reply`, which says what is raised too.
        """
        prompts = [self._prompt(messages, sampling) for messages in conversations]
        streams = [self._stream() for _ in prompts]
        texts, said = [""] * len(prompts), [list[int]() for _ in prompts]
        keys = [position_keys(prompt, self.processor.form) for prompt in prompts]
        begun = [self._read(*pair) for pair in zip(prompts, keys, strict=True)]
        for number, token in decode_together(
            self.decoder,
            begun,
            sampling,
            *self._bounds(),
            done=lambda number: streams[number].stopped,
        ):
            texts[number] += streams[number].push(token)
            said[number].append(token)
        for each in zip(keys, said, (cache for _, cache in begun), strict=True):
            self._keep(*each)
        return [
            Said(text + stream.finish(), stream.stopped or len(own) < sampling.max_new_tokens)
            for text, stream, own in zip(texts, streams, said, strict=True)
        ]

    def _prompt(self, messages: Sequence[Message], sampling: Sampling) -> Prompt:
        """The prompt of a question, with room for the reply."""
        self._check_question(messages)
        room = self.context_tokens - sampling.max_new_tokens
        if room < self.context_tokens // 2:
            most = self.context_tokens // 2
            raise ConfigError(f"This model can give replies of up to {most} tokens.")
        return self.processor.fit(messages, self.clip, room, self.said)

    def _stream(self) -> TextStream:
        return TextStream(self.processor.tokenizer, self.processor.stop_strings)

    def choose(
        self,
        messages: Sequence[Message],
        options: Sequence[str],
        raw: bool = False,
        prior: Tensor | None = None,
    ) -> list[float]:
        """How probable each of some answers to the last message is.

        They are listed below the question. An option's score is the mean log probability of its
        tokens as the whole reply, so long options are not punished. Then the score that it has
        without music is taken off: what a model finds likely whatever it hears says nothing about
        the song. Without music in the conversation nothing is taken off.

        Args:
            messages: The conversation; see `musilingo_core.prompt`.
            options: At least two different answers.
            raw: Leaves the score as it is.
            prior: (options,), the scores without music, where they are known already.

        Returns:
            Probabilities in the order of the options, together 1: the softmax of their scores.

        Raises:
            PromptError: The options are too few, empty or alike, or the conversation cannot be
                rendered or is too long.
            ClipNotFound: A song is no longer kept.
        """
        if len(options) < 2 or len(set(options)) < len(options) or not all(map(str.strip, options)):
            raise PromptError("Give at least two options, each with other words.")
        check(messages)
        self._check_question(messages)
        asked = with_options(messages, options)
        scores = self.log_likelihoods(asked, options)
        unheard = without_clips(asked)
        if not raw and unheard != asked:
            scores = scores - (self.log_likelihoods(unheard, options) if prior is None else prior)
        return [float(p) for p in scores.double().softmax(0)]

    @torch.inference_mode()
    def log_likelihoods(self, messages: Sequence[Message], replies: Sequence[str]) -> Tensor:
        """(replies,) float32: the mean log probability (nats) of the tokens of whole replies.

        The token that ends a reply counts as one of its tokens.

        Args:
            messages: The conversation up to a question.
            replies: What might be said next.

        Raises:
            PromptError: As `reply` does.
            ClipNotFound: A song is no longer kept.
        """
        self._check_question(messages)
        longest = max(replies, key=lambda reply: len(self.processor.tokenizer(reply).input_ids))
        fitted = self.processor.fit([*messages, assistant(longest)], self.clip, self.context_tokens)
        kept = without_oldest(messages, fitted.dropped_turns)
        prompts = [self.processor.render([*kept, assistant(reply)], self.clip) for reply in replies]
        return mean_log_likelihoods(self.model, prompts).cpu()

    @staticmethod
    def _check_question(messages: Sequence[Message]) -> None:
        if not messages or messages[-1].get("role") != "user":
            raise PromptError("The last message is not a question; please ask one.")

    def _known(self, keys: list[int]) -> Cache:
        """States of as much as is kept of the beginning of a prompt."""
        prefix = self.prefixes.longest(keys[:-1])  # the next token is foretold at the last
        return prefix.cache() if prefix else self.decoder.cache()

    def _read(self, prompt: Prompt, keys: list[int]) -> tuple[Tensor, Cache]:
        """Logits of what follows a prompt, and its states: others may go on from them.

        What is known of it is looked up when its turn has come: of many who ask at once about one
        song, the first reads for all.
        """
        embeds = self._embeds(prompt)
        with self.decoder.alone():
            cache = self._known(keys)
            logits = self.decoder.read(embeds[:, cache.get_seq_length() :], cache)
            self.prefixes.put(keys, cache)
        return logits, cache

    def _tokens(self, prompt: Prompt, keys: list[int], sampling: Sampling) -> Iterator[int]:
        """Token ids of a reply; nothing is computed before the first is asked for."""
        logits, cache = self._read(prompt, keys)
        said: list[int] = []
        try:
            for token in decode(self.decoder, logits, cache, sampling, *self._bounds()):
                said.append(token)
                yield token
        finally:
            self._keep(keys, said, cache)

    def _keep(self, keys: list[int], said: list[int], cache: Cache) -> None:
        """Keeps a reply's states and its tokens."""
        if said:
            self.prefixes.put([*keys, *said], cache)
            self._remember(said)

    def _remember(self, said: list[int]) -> None:
        """Keeps a reply's tokens by its text, but those of what ended it, if that is their text."""
        stream, decoded = self._stream(), self.processor.tokenizer.decode
        text = "".join(stream.push(token) for token in said) + stream.finish()
        count = len(said)
        while count and len(decoded(said[:count]).strip()) > len(text):
            count -= 1
        if count and decoded(said[:count]).strip() == text:
            self.said.put(text, said[:count])

    @torch.inference_mode()
    def _embeds(self, prompt: Prompt) -> Tensor:
        """(1, length, hidden): words and music of a prompt."""
        ids = torch.tensor([prompt.ids], device=self.model.device)
        audio = None
        if prompt.audio_features:
            audio = self.model.get_audio_features(audio_features=prompt.audio_features)
        return self.model.embed(ids, audio)

    def _bounds(self) -> tuple[list[int], list[int]]:
        """Tokens that end a reply, and tokens that never stand in one."""
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        all_ends = {*ends, self.processor.tokenizer.eos_token_id} - {None}
        return sorted(all_ends), [self.model.config.audio_token_id]


def hear(
    encoder: MusicEncoder,
    path: str | Path,
    limits: AudioLimits = AudioLimits(),
    on_progress: Callable[[float], None] | None = None,
    name: str = "",
    key: str = "",
) -> Clip:
    """Decodes and encodes a sound file, nothing kept.

    Args:
        encoder: Hears it.
        path: The file.
        limits: What is accepted.
        on_progress: Called with the fraction heard, 0 to 1.
        name: The encoder's fingerprint, where it is known already.
        key: The clip's id, where it is known already.

    Raises:
        AudioError: The file cannot be used; says why.
    """
    name = name or fingerprint(encoder)
    blocks = _Counted(read_blocks(path, encoder.sample_rate, limits, on_progress))
    features, times = encode(encoder, blocks)
    duration_s = blocks.samples / encoder.sample_rate
    key = key or clip_id(path, name)
    return Clip(key, duration_s, features, times.clamp(max=duration_s), name)


class _Counted:
    """Blocks passed on, their samples counted."""

    def __init__(self, blocks: Iterator[Waveform]) -> None:
        self._blocks, self.samples = blocks, 0

    def __iter__(self) -> Iterator[Waveform]:
        for block in self._blocks:
            self.samples += len(block)
            yield block


def load_engine(
    preset: str = "starter",
    *,
    model: str | Path | None = None,
    encoder: str | Path | None = None,
    language_model: str | Path | None = None,
    projection: str | Path | None = None,
    prompt: str | None = None,
    device: str = "auto",
    encoder_device: str | None = None,
    dtype: str = "auto",
    weights: str = "auto",
    on_status: OnStatus | None = None,
    limits: AudioLimits = AudioLimits(),
) -> ChatEngine:
    """An engine by preset, of a whole model, or of parts; each a folder or the Hub's `OWNER/NAME`.

    Args:
        preset: Name of a preset.
        model: A whole model instead, in this project's own layout or in the published one.
        encoder: With `language_model`, parts instead.
        language_model: A LLaMA with its tokenizer.
        projection: A projection instead of the model's own.
        prompt: Name of a prompt form instead of the model's own.
        device: `auto`, `cpu`, `cuda`, `cuda:1` …, or `spread`: all GPUs, and then the processor.
        encoder_device: Of the encoder, where it is another.
        dtype: Of the language model and of MERT: `float32`, `bfloat16`, `float16`, or `auto`: what
            the device multiplies fastest, and float32 for MERT.
        weights: That make tokens: `auto`, which are the fastest, `packed` as int8 on a processor,
            `plain`, or those of all the language model as `8bit` or `4bit`.
        on_status: Told what is going on: a text, and its fraction if known.
        limits: What sound files are accepted.

    Raises:
        WeightsUnavailable: No source has the weights.
        CheckpointError: Weights do not fit.
        ConfigError: There is no such preset, prompt form, device, dtype or kind of weights.
    """
    if weights not in WEIGHTS:
        raise ConfigError(f"There are no weights “{weights}”; choose {', '.join(WEIGHTS)}.")
    if device == SPREAD and encoder_device is not None:
        raise ConfigError("What is spread has its encoder on the first GPU; name no other for it.")
    packed, bits = WEIGHTS[weights]
    placement = Placement(  # before minutes of loading
        find_device("auto" if device == SPREAD else device),
        find_dtype(dtype),
        bits,
        packed,
        None if encoder_device is None else find_device(encoder_device),
        device == SPREAD,
    )
    source = Source(preset, model, encoder, language_model, projection, prompt)
    loaded, processor = load_model(source, placement, on_status)
    cache = FeatureCache(cache_folder() / "features")
    if on_status:
        on_status("Preparing the model for this machine", None)  # slow for the first time only
    decoder = Decoder(loaded.language_model, packed)
    return ChatEngine(
        loaded, processor, source.name, cache, limits, source.licences, decoder=decoder
    )
