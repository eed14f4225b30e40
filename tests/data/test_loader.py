import torch

from musilingo_core.data.loader import Loader
from musilingo_core.data.manifest import Example
from musilingo_core.features import cropped
from musilingo_core.processing import MusiLingoProcessor
from musilingo_core.schedule import TrainingConfig
from tests.conftest import make_clip

CONFIG = TrainingConfig(batch_size=3)
EXAMPLES = [Example(str(n), ((f"{n}?", "It is."),)) for n in range(1, 9)]
EXAMPLES += [Example("4", (("Once more?", "Yes."),))]


def loader(processor: MusiLingoProcessor, config: TrainingConfig = CONFIG) -> Loader:
    return Loader(processor, EXAMPLES, lambda place: make_clip(int(place)), config)


def heard(batch: list[list[object]]) -> list[tuple[int, int]]:
    return [(len(prompts[0].audio_features[0]), len(prompts)) for prompts in batch]  # type: ignore[attr-defined]


def test_an_epoch_has_each_clip_once_with_all_that_is_said(processor: MusiLingoProcessor) -> None:
    data = loader(processor)
    assert len(data) == 3
    for epoch in range(2):
        seen = [clip for n in range(3) for clip in heard(data.shuffled(3 * epoch + n))]
        assert sorted(seen) == [(n, 2 if n == 4 else 1) for n in range(1, 9)]


def test_batches_follow_from_the_seed_whatever_was_asked_before(
    processor: MusiLingoProcessor,
) -> None:
    first, again = loader(processor), loader(processor)
    wanted = [heard(first.shuffled(n)) for n in range(9)]
    assert [heard(again.shuffled(n)) for n in (7, 2, 5)] == [wanted[n] for n in (7, 2, 5)]
    other = loader(processor, TrainingConfig(batch_size=3, seed=1))
    assert [heard(other.shuffled(n)) for n in range(9)] != wanted
    assert wanted[:3] != wanted[3:6]


def test_validation_keeps_the_order(processor: MusiLingoProcessor) -> None:
    data = loader(processor)
    assert [rows for n in range(3) for rows, _ in heard(data.plain(n))] == list(range(1, 9))


def test_a_crop_is_drawn_anew_each_epoch_but_not_by_another_process(
    processor: MusiLingoProcessor,
) -> None:
    config = TrainingConfig(batch_size=8, crop_s=6.0)

    def longest(data: Loader, epoch: int) -> torch.Tensor:
        batch = data.shuffled(epoch)
        assert all(len(p.audio_features[0]) <= 2 for prompts in batch for p in prompts)
        return next(p[0].audio_features[0] for p in batch if p[0].ids == batch[0][0].ids)

    drawn = [
        {
            tuple(p[0].audio_features[0][:, 0].tolist())
            for p in loader(processor, config).shuffled(e)
        }
        for e in (0, 0, 1, 2, 3)
    ]
    assert drawn[0] == drawn[1]
    assert len({frozenset(each) for each in drawn}) > 1


def test_a_crop_is_a_clip_of_its_own() -> None:
    clip = make_clip(10)
    assert cropped(clip, 30.0, 0.3) is clip
    part = cropped(clip, 12.0, 1.0)
    assert torch.equal(part.features, clip.features[6:]) and part.duration_s == 12
    assert part.times[0].tolist() == [0, 3]
    assert torch.equal(cropped(clip, 12.0, 0.0).features, clip.features[:4])
    assert len(cropped(clip, 0.5, 0.5).features) == 1


def test_other_words_are_other_data(processor: MusiLingoProcessor) -> None:
    same = Loader(processor, list(EXAMPLES), lambda place: make_clip(1), CONFIG)
    assert same.digest() == loader(processor).digest()
    other = Loader(processor, EXAMPLES[:-1], lambda place: make_clip(1), CONFIG)
    assert other.digest() != same.digest()
