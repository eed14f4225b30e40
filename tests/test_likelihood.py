from dataclasses import replace

import pytest
import torch

from musilingo_core.data.manifest import Example
from musilingo_core.likelihood import (
    mean_log_likelihoods,
    opening_of,
    shared_length,
    token_losses,
)
from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.processing import MusiLingoProcessor, collate
from musilingo_core.prompt import Prompt, assistant, user
from tests.test_training import EXAMPLES, find

Model = MusiLingoForConditionalGeneration


def test_prompts_about_one_clip_share_its_music_but_not_their_words(
    tiny_model: Model, processor: MusiLingoProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("musilingo_core.likelihood.ALIKE", 2)
    asked = ("What is it?", "How long is it?", "What is at 0:04?")
    clips = [
        [processor.render(Example(clip, ((q, "A song."),)).messages(), find) for q in asked[:count]]
        for clip, count in (("2", 3), ("8", 1), ("5", 2))
    ]
    prompts = [prompt for of_clip in clips for prompt in of_clip]
    alone = [token_losses(tiny_model, [[prompt]])[0] for prompt in prompts]
    losses, owners = token_losses(tiny_model, clips, opening_of(tiny_model, prompts))
    for number, theirs in enumerate(alone):
        torch.testing.assert_close(losses[owners == number], theirs, rtol=1e-4, atol=1e-5)
    weight = tiny_model.multi_modal_projector.weight
    (gradient,) = torch.autograd.grad(losses.sum(), [weight])
    (whole,) = torch.autograd.grad(tiny_model(**collate(prompts)).loss * len(losses), [weight])
    torch.testing.assert_close(gradient, whole, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("opened", [True, False])
def test_words_without_music_are_scored_beside_music(
    tiny_model: Model, processor: MusiLingoProcessor, opened: bool
) -> None:
    said = (("How long is it?", "A song."),)
    clips = [[processor.render(Example(place, said).messages(), find)] for place in ("3", "", "8")]
    alone = [token_losses(tiny_model, [prompts])[0] for prompts in clips]
    opening = opening_of(tiny_model, [prompts[0] for prompts in clips]) if opened else None
    losses, owners = token_losses(tiny_model, clips, opening)
    for number, theirs in enumerate(alone):
        torch.testing.assert_close(losses[owners == number], theirs, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(losses.sum(), [tiny_model.multi_modal_projector.weight])
    assert torch.isfinite(gradient).all() and gradient.any()


def test_the_opening_ends_before_music_labels_and_what_differs(
    tiny_model: Model, processor: MusiLingoProcessor
) -> None:
    prompts = [processor.render(example.messages(), find) for example in EXAMPLES[:3]]
    music = tiny_model.config.audio_token_id
    assert shared_length(prompts, music) == prompts[0].ids.index(music) - 1
    other = replace(prompts[1], ids=[prompts[1].ids[0], 5, *prompts[1].ids[2:]])
    assert shared_length([prompts[0], other], music) == 0
    assert shared_length([Prompt([1, 2, 3], [-100, 2, 3])], music) == 0


@pytest.mark.parametrize("clip", ["7", None], ids=["music", "words only"])
def test_a_reply_is_as_likely_as_its_tokens_are_on_average(
    tiny_model: Model, processor: MusiLingoProcessor, clip: str | None
) -> None:
    replies = ("Slow.", "It is a fast one.", "No")
    prompts = [processor.render([user("How?", clip), assistant(r)], find) for r in replies]
    with torch.no_grad():
        theirs = [-float(tiny_model(**collate([prompt])).loss) for prompt in prompts]
        ours = mean_log_likelihoods(tiny_model, prompts)
    assert ours.tolist() == pytest.approx(theirs, rel=1e-4)
    assert len(set(theirs)) == 3
