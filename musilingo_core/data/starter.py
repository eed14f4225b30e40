"""The starter's training data: real songs, mixtures of them, rendered scores, and what is no music.

`build` writes a manifest and one file of features. Real songs under free licences are few and
lopsided (hardly a voice among them). Since the tag heads are linear in the features, a song's
features can be mixed with another's and pushed towards a tag, and the heads still say exactly what
the result is: balanced data for every class. The push goes along the directions in which real
features vary together, so that what comes out looks like music.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from musilingo_core.audio import AudioLimits
from musilingo_core.data.dialogues import (
    NAMES,
    Scene,
    Turn,
    choices,
    keywords,
    summary,
    write,
)
from musilingo_core.data.facts import CHOIR, FEMALE, GENRES, INSTRUMENTS, MALE, Facts, Teacher
from musilingo_core.data.manifest import Example, read_sounds, write_features, write_manifest
from musilingo_core.data.published import held_out
from musilingo_core.encoders import fingerprint
from musilingo_core.encoders.musicnn import MusicnnEncoder
from musilingo_core.engine import hear
from musilingo_core.errors import ConfigError
from musilingo_core.features import Clip, FeatureCache, clip_id
from musilingo_core.storage import cache_folder

ROW_S = 2.992  # seconds from one feature row to the next
MOST_ROWS = 24  # of one song (72 s); longer clips are joined from up to eight
LONGEST_S = 600.0
HELD_OUT = 1 / 12  # of works, for validation
UNKNOWN = Facts()
VOICES = {"male": MALE, "female": FEMALE, "choir": CHOIR}  # what features are pushed towards
COLLECTIONS, FEW = 24, 8  # collections of a few songs each, to mix songs from
CANDIDATES = 4  # drawn for one made clip
STRAY = 0.4  # most by which a song is moved at random, in features' own unit
STRENGTHS = (0.85, 1.5)  # factors between which features grow: dense, loud songs go far beyond most
SPREADS = (0.2, 0.2, 1.0, 4.0)  # of every direction that a push may use, beside the songs' own
RIDGE = 1e-3  # of the mean square of a feature: few clips must not decide it all
MOST_PUSH = 7.0  # standard deviations that features may be moved towards a class
LIMITS = AudioLimits(max_duration_s=3600)  # training songs may be longer than a visitor's


@dataclass(frozen=True)
class Recipe:
    """How much of what.

    Attributes:
        clips: In all.
        real: Share of untouched stretches of real songs.
        rendered: Share of rendered scores, whose facts are certain.
        sung: Share of songs that a synthetic voice certainly sings.
        not_music: Share of noise, speech and near-silence.
        single: Share of clips about which every question is asked first, in a conversation of its
            own: with other answers before it, much of an answer can be read instead of heard.
        questions: Asked so about one clip.
        choices: Questions with options asked about every clip, each in a conversation of its own.
        unheard: Share of clips about which such questions are asked once more, without music: there
            any option is as good as another. What `choose` takes off shall not lean to one.
        turns: Most turns of the two conversations about each other clip; the fewest are two.
        validation: Share of clips held out (from songs of their own).
        seed: Of everything drawn.
        captions: Instead of conversations, one caption a clip, and of the clip the mean row only:
            for the first stage, which learns what there is to hear with few tokens.
    """

    clips: int = 10000
    real: float = 0.2
    rendered: float = 0.2
    sung: float = 0.14
    not_music: float = 0.2
    single: float = 0.5
    questions: int = 4
    choices: int = 4
    unheard: float = 0.1
    turns: int = 5
    validation: float = 0.012
    seed: int = 0
    captions: bool = False


@dataclass(frozen=True)
class Piece:
    """What was heard of one sound file.

    Attributes:
        rows: Features (rows, size).
        work: Song, score or recording; pieces of one work are never told apart from each other.
        facts: What is certain of it.
    """

    rows: Tensor
    work: str
    facts: Facts = UNKNOWN


@dataclass(frozen=True)
class Material:
    """What conversations are made from.

    Attributes:
        songs: Real songs.
        rendered: Rendered scores, with facts.
        sung: Songs that a synthetic voice sings, with who that is.
        other: What is no music, with its kind.
    """

    songs: Sequence[Piece]
    rendered: Sequence[Piece] = ()
    sung: Sequence[Piece] = ()
    other: Sequence[Piece] = ()

    def split(self) -> tuple["Material", "Material"]:
        """About a twelfth of each kind held out (at least a work), and the rest.

        A work is always on the same side, whatever else there is: who trains on with fresh data
        still has songs that were never heard.
        """
        pools = (self.songs, self.rendered, self.sung, self.other)
        aside, rest = zip(*map(_parted, pools), strict=True)
        return Material(*aside), Material(*rest)


def _parted(pool: Sequence[Piece]) -> tuple[list[Piece], list[Piece]]:
    """The pieces of works that are held out, and the rest."""
    works = sorted({piece.work for piece in pool}, key=lambda w: sha256(w.encode()).digest())
    aside = {work for work in works[:-1] if held_out(work, HELD_OUT)} or set(works[:-1][:1])
    return (
        [piece for piece in pool if piece.work in aside],
        [piece for piece in pool if piece.work not in aside],
    )


class Mixer:
    """Draws songs' rows, real or made up."""

    def __init__(self, songs: Sequence[Tensor], teacher: Teacher, rng: Random) -> None:
        self.songs, self.teacher, self.rng = songs, teacher, rng
        rows = torch.cat(list(songs))
        # A single row varies in none; dividing by the rows less one would give NaN.
        self.covariance = torch.cov(rows.T, correction=min(len(rows) - 1, 1))
        self.limit = teacher.encoder.config.feature_limit
        self.weights = teacher.heads()

    def real(self, most: int = MOST_ROWS) -> Tensor:
        """Neighbouring rows of one song, 1 to `most`."""
        song = self.rng.choice(self.songs)
        count = min(len(song), self.rng.choice([1, 2, 4, 4, 8, 16, MOST_ROWS]), most)
        start = self.rng.randrange(len(song) - count + 1)
        return song[start : start + count]

    def made(self, most: int = MOST_ROWS) -> Tensor:
        """At most `most` rows of a mixture of two songs, pushed towards one to three classes."""
        first, second = self.real(most), self.real()
        share = self.rng.choice([0.0, 0.0, self.rng.uniform(0.1, 0.5)])
        picked = second[[self.rng.randrange(len(second)) for _ in range(len(first))]]
        rows = (1 - share) * first + share * picked
        rows = rows / (share**2 + (1 - share) ** 2) ** 0.5  # mixing must not shrink the spread
        aims = self.rng.sample(self._aims(), self.rng.choice([1, 2, 2, 3]))
        if self.rng.random() < 0.6:  # voices are what the songs lack most
            sings = self.rng.choice(list(VOICES))
            rivals = tuple(t for other in VOICES if other != sings for t in VOICES[other])
            aims.append((VOICES[sings], rivals))
        for tags, rivals in aims:
            rows = self.push(rows, tags, rivals)
        return rows.clamp(-self.limit, self.limit)

    def strayed(self, rows: Tensor) -> Tensor:
        """Rows moved a little and grown, all alike: other songs go where these hardly do."""
        grown = self.rng.uniform(*STRENGTHS) * rows
        moved = grown + self.rng.uniform(0, STRAY) * _noise((1, rows.shape[1]), self.rng)
        return moved.clamp(-self.limit, self.limit)

    def push(self, rows: Tensor, tags: Sequence[str], rivals: Sequence[str] = ()) -> Tensor:
        """Moves rows until one of the tags is likely, and likelier than every rival."""
        number = self.teacher.number[self.rng.choice(tags)]
        others = [self.teacher.number[tag] for tag in rivals]
        wanted, margin, left = self.rng.uniform(-0.8, 1.0), self.rng.uniform(0.2, 1.0), MOST_PUSH
        # Voices must be heard wherever else the music is moved: not always the same way there.
        anywhere = self.rng.choice(SPREADS)
        for _ in range(6):  # what is pushed back may let another rival through
            logits = self.teacher.logits(rows)
            rival = max(others, key=lambda n: float(logits[n])) if others else None
            aim, rise = self.weights[number], wanted - float(logits[number])
            if rival is not None and logits[rival] + margin > logits[number]:
                aim = aim - self.weights[rival]
                rise = max(rise, margin + float(logits[rival] - logits[number]))
            direction = self.covariance @ aim + anywhere * aim
            deviation = float(aim @ direction) ** 0.5
            step = min(max(rise / deviation, 0.0), left)
            rows, left = rows + step / deviation * direction, left - step
        return rows

    def _aims(self) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
        """A class of each kind, drawn evenly, with the tags of its rivals."""
        manner = [("m:slow",), ("m:fast",), ("m:loud",), ("m:quiet", "m:soft")]
        manner += [("s:sad",), ("s:happy",), ("m:drums", "m:beat")]
        aims: list[tuple[tuple[str, ...], tuple[str, ...]]] = [(self.rng.choice(manner), ())]
        for kind in (INSTRUMENTS, GENRES):
            name = self.rng.choice(list(kind))
            aims.append((kind[name], tuple(t for n in kind if n != name for t in kind[n])))
        return aims


def build(
    material: Material, encoder: MusicnnEncoder, folder: str | Path, recipe: Recipe = Recipe()
) -> dict[str, int]:
    """Writes `manifest.jsonl` and `features.safetensors` into a folder.

    Returns:
        How many clips came from each source.

    Raises:
        ConfigError: There are fewer than two songs.
    """
    if len(material.songs) < 2:
        raise ConfigError(
            "Training data is made from at least two songs, one of which is held out for "
            f"validation, and the lists of music name {len(material.songs)}; please add more."
        )
    folder = Path(folder).resolve()
    rng = Random(recipe.seed)
    teacher = Teacher(encoder)
    name = fingerprint(encoder)
    validation, training = material.split()
    clips: list[Clip] = []
    examples: list[Example] = []
    counts: dict[str, int] = {}
    for split, share, part in (
        ("train", 1 - recipe.validation, training),
        ("validation", recipe.validation, validation),
    ):
        mixers = _mixers([song.rows for song in part.songs], teacher, rng)
        line = music_line(part)
        had: Counter[str] = Counter()
        for _ in range(int(recipe.clips * share)):
            source, rows, certain = _draw(rng.choice(mixers), part, recipe, had, line, rng)
            if recipe.captions:
                rows = rows.mean(0, keepdim=True)
            clip_id = f"{len(clips):06}"
            clip = timed(rows, clip_id, name, _row_s(len(rows), rng))
            scene = _scene(clip, certain, teacher)
            had.update(_classes(scene.facts))
            clips.append(clip)
            place = f"{folder}/features.safetensors#{clip_id}"
            words = keywords(scene.facts) if recipe.captions else ()
            examples += [
                Example(place, turns, split, source, words=words)
                for turns in _conversations(scene, recipe, rng)
            ]
            counts[f"{split} {source}"] = counts.get(f"{split} {source}", 0) + 1
            if not recipe.captions and rng.random() < recipe.unheard:
                guessed = choices(scene, rng, recipe.choices, heard=False)
                examples += [Example("", (turn,), split, "unheard", clip_id) for turn in guessed]
    write_features(clips, folder / "features.safetensors")
    write_manifest(examples, folder / "manifest.jsonl")
    return counts


def _mixers(songs: Sequence[Tensor], teacher: Teacher, rng: Random) -> list[Mixer]:
    """Mixers of all songs, and as many of a few songs each.

    A push goes where features of its songs vary together, and they do so differently in other
    collections.
    """
    few = min(FEW, len(songs))
    some = [Mixer(rng.sample(songs, few), teacher, rng) for _ in range(COLLECTIONS)]
    return [*some, *[Mixer(songs, teacher, rng)] * COLLECTIONS]


def _conversations(scene: Scene, recipe: Recipe, rng: Random) -> list[tuple[Turn, ...]]:
    """What is said about one clip: a caption, or choices and single questions or conversations."""
    if recipe.captions:
        return [(("", summary(scene.facts)),)]
    chosen = [(turn,) for turn in choices(scene, rng, recipe.choices)]
    if rng.random() < recipe.single:
        asked = write(scene, rng, recipe.questions, follow_ups=False)
        return [*chosen, *((turn,) for turn in asked)]
    both = [tuple(write(scene, rng, rng.randint(2, recipe.turns))) for _ in range(2)]
    return [*chosen, *(turns for turns in both if turns)]


def _draw(
    mixer: Mixer,
    material: Material,
    recipe: Recipe,
    had: Counter[str],
    line: Tensor | None,
    rng: Random,
) -> tuple[str, Tensor, Facts | None]:
    """Source, rows, and certain facts if there are any.

    Of several mixtures that are still on music's side of a `line` the one is kept whose classes
    were `had` least: a push towards a rare class often ends in a frequent one.
    """
    dice = rng.random()
    if material.other and dice < recipe.not_music:
        piece = rng.choice(material.other)
        same = [other.rows for other in material.other if other.facts == piece.facts]
        return piece.facts.kind, _blended(_cut(piece.rows, rng), rng.choice(same), rng), piece.facts
    dice -= recipe.not_music
    for source, pool, share in (
        ("rendered", material.rendered, recipe.rendered),
        ("sung", material.sung, recipe.sung),
    ):
        if pool and 0 <= dice < share:
            piece = rng.choice(pool)
            return source, mixer.strayed(_cut(piece.rows, rng)), piece.facts
        dice -= share
    if dice < recipe.real:
        return "real", mixer.strayed(_in_parts(mixer.real, rng)), None
    candidates = [mixer.strayed(_in_parts(mixer.made, rng)) for _ in range(CANDIDATES)]

    def commonness(rows: Tensor) -> tuple[bool, int]:
        strange = line is not None and float(rows.mean(0) @ line[:-1] + line[-1]) < 0
        return strange, sum(had[name] for name in _classes(mixer.teacher.facts(rows)))

    return "made", min(candidates, key=commonness), None


def music_line(material: Material) -> Tensor | None:
    """(size + 1,): weights and bias of a line between music and what is none, by least squares.

    Above zero is music, each side counting the same; None where nothing is known of one side.
    """
    sides = [
        [piece.rows for pool in pools for piece in pool]
        for pools in ((material.songs, material.rendered, material.sung), (material.other,))
    ]
    if not all(sides):
        return None
    music, other = (torch.nn.functional.pad(torch.cat(rows), (0, 1), value=1.0) for rows in sides)
    spread = music.T @ music / len(music) + other.T @ other / len(other)
    ridge = RIDGE * spread.diagonal().mean() * torch.eye(len(spread))
    return torch.linalg.solve(spread + ridge, music.mean(0) - other.mean(0))


def _classes(facts: Facts) -> tuple[str, ...]:
    """What there should be as much of as of anything else."""
    return (facts.genre, *facts.instruments[:1], *facts.moods[:1])


def _in_parts(draw: Callable[[int], Tensor], rng: Random) -> Tensor:
    """One stretch, or different ones in a row: else nobody would need to listen to a moment."""
    if rng.random() >= 0.45:
        return draw(MOST_ROWS)
    parts = rng.choice([2, 2, 3, 4, 8])
    most = rng.choice([MOST_ROWS // parts, MOST_ROWS])
    return torch.cat([draw(most) for _ in range(parts)])


def _cut(rows: Tensor, rng: Random) -> Tensor:
    count = rng.randint(1, len(rows))
    start = rng.randrange(len(rows) - count + 1)
    return rows[start : start + count]


def _blended(rows: Tensor, others: Tensor, rng: Random) -> Tensor:
    """Rows mixed with another clip's of the same kind, and a little shaken: few clips go far."""
    picked = others[[rng.randrange(len(others)) for _ in range(len(rows))]]
    share = rng.choice([0.0, rng.uniform(0, 0.6)])
    return (1 - share) * rows + share * picked + rng.uniform(0, 0.3) * _noise(rows.shape, rng)


def _noise(shape: Sequence[int], rng: Random) -> Tensor:
    """Normal noise that repeats with the recipe's seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(rng.getrandbits(40)))


def _row_s(rows: int, rng: Random) -> float:
    """Seconds a row: mostly the real ones, in some songs so many that they last ten minutes."""
    if rows >= 8 and rng.random() < 0.5:
        return rng.uniform(ROW_S, LONGEST_S / rows)
    return ROW_S


def timed(rows: Tensor, clip_id: str, name: str, row_s: float = ROW_S) -> Clip:
    """A clip of rows (rows, size) that stand `row_s` seconds apart, heard by encoder `name`."""
    starts = torch.arange(len(rows)) * row_s
    times = torch.stack([starts, starts + row_s], dim=1).float()
    return Clip(clip_id, float(times.max()), rows.clone(), times, name)


def _scene(clip: Clip, certain: Facts | None, teacher: Teacher) -> Scene:
    """Facts of the clip and its parts; what is certain replaces what the teacher thinks.

    All but a moderate tempo, which is slow to one and fast to another. Among options it is right;
    taught as the answer to an open question, it takes in many a score that is slow or fast.
    """
    told, among_options = certain, None
    if certain is not None and certain.tempo == "moderate":
        told = replace(certain, tempo="")
        among_options = teacher.facts(clip.features, certain)
    return Scene(
        teacher.facts(clip.features, told),
        clip.duration_s,
        lambda start_s, end_s: teacher.facts(clip.part(start_s, end_s).features, told),
        among_options,
    )


def _stretch(rows: Tensor) -> Tensor:
    """At most `MOST_ROWS` neighbouring rows, from a third into a song: no long song shall rule."""
    start = int(0.3 * max(len(rows) - MOST_ROWS, 0))
    return rows[start : start + MOST_ROWS]


def rendered_facts(row: dict[str, Any]) -> Facts:
    """Certain facts of a rendered score from its manifest row (`family`, `tempo`, `drums`)."""
    family = row["family"]
    others = tuple(name for name in NAMES if name not in (family, row.get("second")))
    drums = row.get("drums")
    return Facts(
        instruments=(family,),
        absent=others,
        tempo="moderate" if row["tempo"] == "medium" else row["tempo"],
        voice="none" if family != "choir" else "choir",
        drums="" if drums is None else "yes" if drums else "no",
    )


def gather(
    encoder: MusicnnEncoder,
    music: Sequence[str | Path],
    rendered: Sequence[str | Path],
    sung: Sequence[str | Path],
    not_music: Sequence[str | Path],
    on_status: Callable[[str, float | None], None] = lambda text, fraction: None,
) -> Material:
    """Hears all sound files that JSON Lines files name by `path`, or remembers them.

    Args:
        encoder: The starter's.
        music: Files whose rows need only `path`.
        rendered: Files of rendered scores: `path`, `family`, `tempo`, perhaps `drums`.
        sung: Files of songs whose singer is known: `path`, `voice` (as in `Facts`).
        not_music: Files whose rows have `path` and `kind` (`noise`, `speech`, `silence`).
        on_status: Told how far it is.

    Raises:
        ManifestError: A list cannot be read, or a row lacks a field.
        UnreadableAudio: A sound file cannot be used.
    """
    cache = FeatureCache(cache_folder() / "features", disk_bytes=10_000_000_000)
    name = fingerprint(encoder)

    def rows(
        lists: Sequence[str | Path], what: str, *needed: str
    ) -> Iterator[tuple[dict[str, Any], Tensor]]:
        found = [row for sounds in lists for row in read_sounds(sounds, *needed)]
        for number, row in enumerate(found):
            on_status(f"Hearing {what}", number / len(found))
            path = row["path"]
            clip = cache.get_or(
                clip_id(path, name), partial(hear, encoder, path, LIMITS, None, name)
            )
            yield row, clip.features

    songs = rows(music, "songs")
    scores = rows(rendered, "rendered scores", "family", "tempo")
    voices = rows(sung, "songs that are sung", "voice")
    others = rows(not_music, "what is not music", "kind")

    def named(row: dict[str, Any], name: str) -> str:
        return str(row.get(name, Path(row["path"]).name))

    return Material(
        [Piece(_stretch(found), named(row, "title")) for row, found in songs],
        [Piece(found, named(row, "score"), rendered_facts(row)) for row, found in scores],
        [Piece(found, named(row, "recording"), Facts(voice=row["voice"])) for row, found in voices],
        [Piece(found, named(row, "path"), Facts(kind=row["kind"])) for row, found in others],
    )
