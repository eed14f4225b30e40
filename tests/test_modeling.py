from pathlib import Path
from typing import Any

import pytest
import torch

from musilingo_core.configuration import pooled_rows
from musilingo_core.encoders import encode
from musilingo_core.errors import PromptError
from musilingo_core.features import Clip
from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.processing import MusiLingoProcessor
from musilingo_core.prompt import assistant, user
from tests.conftest import make_clip, tone

Model = MusiLingoForConditionalGeneration


def find(key: str) -> Clip:
    return make_clip(rows=10 if key == "song" else 2)


@pytest.fixture
def batch(processor: MusiLingoProcessor) -> Any:
    return processor(
        [[user("Who?", "song"), assistant("A man.")], [user("What?", "other"), assistant("Yes.")]],
        find,
    )


def test_the_conventional_parts_have_the_conventional_names(tiny_model: Model) -> None:
    parts = {name for name, _ in tiny_model.named_children()}
    assert parts == {"audio_tower", "multi_modal_projector", "language_model"}
    assert isinstance(tiny_model.multi_modal_projector, torch.nn.Linear)
    assert tiny_model.config.model_type == "musilingo"


def test_waveforms_and_their_features_give_the_same_logits(
    tiny_model: Model, processor: MusiLingoProcessor
) -> None:
    waveform = tone(13)
    features, times = encode(tiny_model.audio_tower, [waveform])
    clip = Clip("0" * 16, 13.0, features, times)
    batch = processor([[user("Who?", "song")]], lambda key: clip)
    ids = batch["input_ids"]
    with torch.no_grad():
        cached = tiny_model(input_ids=ids, audio_features=[features]).logits
        heard = tiny_model(input_ids=ids, input_values=[torch.from_numpy(waveform)]).logits
    torch.testing.assert_close(cached, heard)


def test_music_stands_where_its_placeholders_are(tiny_model: Model, batch: Any) -> None:
    audio = tiny_model.get_audio_features(audio_features=batch["audio_features"])
    embeds = tiny_model.embed(batch["input_ids"], audio)
    places = batch["input_ids"] == tiny_model.config.audio_token_id
    torch.testing.assert_close(embeds[places], audio)
    words = tiny_model.get_input_embeddings()(batch["input_ids"])
    torch.testing.assert_close(embeds[~places], words[~places])


@pytest.mark.parametrize("rows", [1, 11])
def test_too_few_or_too_many_features_are_refused(tiny_model: Model, batch: Any, rows: int) -> None:
    features = [batch["audio_features"][0], torch.randn(rows, 400)]
    with pytest.raises(PromptError, match="places for"):
        tiny_model(input_ids=batch["input_ids"], audio_features=features)
    with pytest.raises(PromptError, match="places for"):
        tiny_model(input_ids=batch["input_ids"])


def test_damaged_features_are_refused(tiny_model: Model) -> None:
    rows = torch.full((2, 400), float("nan"))
    with pytest.raises(PromptError, match="damaged"):
        tiny_model.get_audio_features(audio_features=[rows])
    with pytest.raises(PromptError, match="either"):
        tiny_model.get_audio_features()


def test_padding_a_batch_changes_nothing(
    tiny_model: Model, processor: MusiLingoProcessor, batch: Any
) -> None:
    with torch.no_grad():
        together = tiny_model(**batch).logits
        alone = tiny_model(**processor([[user("What?", "other"), assistant("Yes.")]], find)).logits
    length = alone.shape[1]
    torch.testing.assert_close(together[1:, :length], alone, atol=1e-5, rtol=1e-4)


def test_songs_are_told_apart(tiny_model: Model, processor: MusiLingoProcessor) -> None:
    batch = processor([[user("Who?", "song")]], find)
    other = [torch.randn(10, 400)]
    with torch.no_grad():
        tiny_model.multi_modal_projector.weight.normal_(std=0.1)
        first = tiny_model(**batch).logits
        second = tiny_model(input_ids=batch["input_ids"], audio_features=other).logits
    assert (first - second).abs().max() > 1e-3


def test_generate_works_and_goes_on_from_its_cache(
    tiny_model: Model, processor: MusiLingoProcessor
) -> None:
    batch = processor([[user("Who?", "song")]], find)
    del batch["labels"]
    settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": None}
    cached = tiny_model.generate(**batch, **settings)
    plain = tiny_model.generate(**batch, **settings, use_cache=False)
    assert cached.shape[1] == batch["input_ids"].shape[1] + 12
    assert torch.equal(cached, plain)


def test_beams_and_batches_hear_their_own_songs(
    tiny_model: Model, processor: MusiLingoProcessor
) -> None:
    settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": 6, "eos_token_id": None}
    talks = [[user("Who is it?", "song")], [user("Hm?", "other")]]
    batch = processor(talks, find)
    del batch["labels"]
    together = tiny_model.generate(**batch, **settings)[:, -6:]
    for row, talk in enumerate(talks):
        alone = processor([talk], find)
        del alone["labels"]
        assert torch.equal(tiny_model.generate(**alone, **settings)[0, -6:], together[row])
    assert tiny_model.generate(**batch, **settings, num_beams=2).shape[0] == 2


def test_only_the_projection_gets_a_gradient(tiny_model: Model, batch: Any) -> None:
    tiny_model.requires_grad_(False)
    tiny_model.multi_modal_projector.requires_grad_(True)
    tiny_model(**batch).loss.backward()
    learning = {name for name, p in tiny_model.named_parameters() if p.grad is not None}
    assert learning == {"multi_modal_projector.weight", "multi_modal_projector.bias"}
    assert tiny_model.multi_modal_projector.weight.grad.abs().sum() > 0


def test_a_saved_model_says_the_same(tiny_model: Model, batch: Any, tmp_path: Path) -> None:
    tiny_model.save_pretrained(tmp_path)
    loaded = Model.from_pretrained(tmp_path).eval()
    assert loaded.config.segments == 3 and loaded.config.tokens_per_row == 2
    assert loaded.config.audio_config.model_type == "musicnn"
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, tiny_model(**batch).logits)


def test_the_paper_s_form_keeps_every_row_and_ours_at_most_five() -> None:
    assert [pooled_rows(rows, None) for rows in (1, 3, 56)] == [1, 3, 56]
    assert [pooled_rows(rows, 4) for rows in (1, 2, 20, 400)] == [1, 3, 5, 5]
