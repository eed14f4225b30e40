import torch

from musilingo_core.data.loader import Loader
from musilingo_core.data.manifest import Example
from musilingo_core.features import cropped
from musilingo_core.processing import MusiLingoProcessor
from musilingo_core.prompt import Prompt
from musilingo_core.schedule import TrainingConfig
from tests.conftest import make_clip

CONFIG = TrainingConfig(batch_size=3)
EXAMPLES = [Example(str(n), ((f"{n}?", "It is."),)) for n in range(1, 9)]
EXAMPLES += [Example("4", (("Once more?", "Yes."),))]


def loader(processor: MusiLingoProcessor, config: TrainingConfig = CONFIG) -> Loader:
    return Loader(processor, EXAMPLES, lambda place: make_clip(int(place)), config)


def heard(batch: list[list[Prompt]]) -> list[tuple[int, int]]:
    return [(len(prompts[0].audio_features[0]), len(prompts)) for prompts in batch]


def of(batch: list[list[Prompt]]) -> list[torch.Tensor]:
    """The rows of each clip."""
    return [prompts[0].audio_features[0] for prompts in batch]


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
    epochs = [loader(processor, config).shuffled(epoch) for epoch in (0, 0, 1, 2, 3)]
    assert sorted(len(rows) for rows in of(epochs[0])) == [1] + 7 * [2]
    drawn = [{rows.sum().item() for rows in of(epoch)} for epoch in epochs]
    assert drawn[0] == drawn[1]
    assert len({frozenset(each) for each in drawn}) > 1


def test_outside_of_epochs_the_middle_of_long_clips_is_heard(
    processor: MusiLingoProcessor,
) -> None:
    data = loader(processor, TrainingConfig(batch_size=8, crop_s=6.0))
    middle = make_clip(8).features[3:5]
    assert torch.equal(of(data.plain(0))[-1], middle)
    assert torch.equal(data.features(8)[-1], middle)


def test_some_clips_are_spread_over_all(processor: MusiLingoProcessor) -> None:
    data = loader(processor)
    assert [len(rows) for rows in data.features(5)] == [1, 2, 4, 5, 7]
    assert [len(rows) for rows in data.features(100)] == list(range(1, 9))
    few = Loader(processor, EXAMPLES, lambda place: make_clip(int(place)), CONFIG, most=2)
    assert heard(few.plain(0)) == [(1, 1), (5, 1)] and len(few) == 1


def test_what_is_said_without_music_stands_apart(processor: MusiLingoProcessor) -> None:
    unheard = [Example("", ((f"{n}?", "It is."),), track=f"{n // 2}") for n in range(4)]
    data = Loader(processor, [*EXAMPLES, *unheard], lambda place: make_clip(int(place)), CONFIG)
    seen = [prompts for n in range(len(data)) for prompts in data.shuffled(n)]
    assert sorted(len(p) for p in seen if not p[0].audio_features) == [2, 2] and len(seen) == 10
    assert [len(rows) for rows in data.features(100)] == list(range(1, 9))
    assert not data.some(1)[0].audio_features  # what all prompts begin with is what it begins with
    assert not data.described()


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
