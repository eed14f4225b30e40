"""Examples into batches of prompts: grouped by clip, shuffled, rendered when they are needed.

Which batch comes when follows from the seed alone, so a run can go on from any step, and several
processes can each take their part without a word between them.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from torch import Tensor

from musilingo_core.data.manifest import Example
from musilingo_core.features import Clip, cropped
from musilingo_core.processing import MusiLingoProcessor
from musilingo_core.prompt import Prompt
from musilingo_core.schedule import TrainingConfig

Batch = list[list[Prompt]]  # for each clip the prompts that begin with it


class Loader:
    """The examples of one split.

    Args:
        processor: Renders them.
        examples: What is said about one clip may stand anywhere among them.
        find_clip: Gives a clip by its place.
        config: Batch size, seed, crops.
        most: Clips that are taken, spread evenly; 0 takes all.
    """

    def __init__(
        self,
        processor: MusiLingoProcessor,
        examples: Sequence[Example],
        find_clip: Callable[[str], Clip],
        config: TrainingConfig,
        most: int = 0,
    ) -> None:
        self.processor, self.config = processor, config
        # What is said about one clip is rendered together: its features are read once.
        self.find_clip = functools.lru_cache(maxsize=1)(find_clip)
        clips: dict[str, list[Example]] = {}
        for number, example in enumerate(examples):
            apart = f"#{example.track or number}"  # without music, which must be no large group
            clips.setdefault(example.clip or apart, []).append(example)
        self.clips = _spread(list(clips.values()), most or len(clips))
        self._order = functools.lru_cache(maxsize=1)(self._shuffled)

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self.clips) // self.config.batch_size)

    def shuffled(self, number: int) -> Batch:
        """Batch by number, epoch after epoch without end, the same for the same seed."""
        epoch, place = divmod(number, len(self))
        return [self._render(self.clips[n], epoch) for n in self._order(epoch)[place]]

    def plain(self, number: int) -> Batch:
        """Batch by number in the manifest's order, for validation: of long clips the middle."""
        start = number * self.config.batch_size
        clips = self.clips[start : start + self.config.batch_size]
        return [self._render(examples, None) for examples in clips]

    def some(self, clips: int) -> list[Prompt]:
        """The prompts about some clips, spread evenly over the manifest, and one without any."""
        alone = [examples for examples in self.clips if not examples[0].clip][:1]
        spread = _spread(self.clips, clips)
        return [p for examples in alone + spread for p in self._render(examples, None)]

    def features(self, clips: int) -> list[Tensor]:
        """Feature rows (rows, size) of some clips, spread evenly over the manifest."""
        spread = _spread([examples for examples in self.clips if examples[0].clip], clips)
        return [self._clip(examples[0].clip, None).features for examples in spread]

    def described(self) -> list[tuple[Tensor, tuple[str, ...]]]:
        """Feature rows and words of all clips that have words to begin with."""
        first = (examples[0] for examples in self.clips)
        return [(self._clip(e.clip, None).features, e.words) for e in first if e.words]

    def digest(self) -> str:
        """Tells this data from other data: words, places, and the files that hold features."""
        digest = hashlib.sha256()
        files: set[str] = set()
        for examples in self.clips:
            for example in examples:
                digest.update(str((example.clip, example.turns)).encode())
                files.add(example.clip.partition("#")[0])
        for file in sorted(files):
            if Path(file).is_file():
                digest.update(
                    str((Path(file).stat().st_size, Path(file).stat().st_mtime_ns)).encode()
                )
        return digest.hexdigest()

    def _shuffled(self, epoch: int) -> list[list[int]]:
        """Numbers of clips, batch by batch.

        Not sorted by length: what is short is alike (no music, all of it), a batch must not be.
        """
        order = list(range(len(self.clips)))
        Random(f"{self.config.seed}-{epoch}").shuffle(order)
        size = self.config.batch_size
        return [order[i : i + size] for i in range(0, len(order), size)]

    def _render(self, examples: Sequence[Example], epoch: int | None) -> list[Prompt]:
        """The prompts about one clip as it is heard in an epoch, or in validation."""
        find = functools.partial(self._clip, epoch=epoch)
        prompts = [self.processor.render(example.messages(), find) for example in examples]
        if not self.config.max_response_tokens:
            return prompts
        return [prompt.shortened(self.config.max_response_tokens) for prompt in prompts]

    def _clip(self, place: str, epoch: int | None) -> Clip:
        """A clip, or the stretch of it drawn for an epoch; outside of epochs its middle."""
        clip, longest_s = self.find_clip(place), self.config.crop_s
        if not longest_s:
            return clip
        if epoch is None:
            return cropped(clip, longest_s, 0.5)
        return cropped(clip, longest_s, Random(f"{self.config.seed}-{epoch}-{place}").random())


def _spread(clips: list[list[Example]], most: int) -> list[list[Example]]:
    """Up to so many of some clips, from the first to the last at even distances."""
    count = min(most, len(clips))
    return [clips[number * len(clips) // count] for number in range(count)]
