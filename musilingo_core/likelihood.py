"""How likely a model finds words: the one place that scores, for training, `choose` and evaluation.

What prompts share is computed once, and the vocabulary is scored only where a prompt is labelled.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BatchFeature, DynamicCache

from musilingo_core.modeling import MusiLingoForConditionalGeneration
from musilingo_core.processing import collate
from musilingo_core.prompt import IGNORED, Prompt

ALIKE = 8  # prompts of like length computed together: padding costs as much as words do


def token_losses(
    model: MusiLingoForConditionalGeneration,
    clips: Sequence[Sequence[Prompt]],
    opening: DynamicCache | None = None,
) -> tuple[Tensor, Tensor]:
    """How unlikely each labelled token is.

    Args:
        model: Scores; gradients flow to whatever of it learns.
        clips: For each clip the prompts that begin with it; prompts without music may share a
            clip's place among themselves.
        opening: `opening_of` these prompts and perhaps others; None computes it with each clip.

    Returns:
        (tokens,) float32, −log probability (nats) of each labelled token, and (tokens,) int64, the
        number of its prompt, counted through all clips. Tokens of one prompt are in order.
    """
    cache = copy.deepcopy(opening) or DynamicCache(config=model.config.text_config)
    begun = cache.get_seq_length()
    cache.batch_repeat_interleave(len(clips))
    ends = [_music_end(prompts[0], model.config.audio_token_id, begun) for prompts in clips]
    seen = torch.ones(len(clips), begun, dtype=torch.long, device=model.device)
    if max(ends) > begun:
        music = [
            Prompt(p[0].ids[begun:end], p[0].labels[begun:end], p[0].audio_features[:1])
            for p, end in zip(clips, ends, strict=True)
        ]
        _, seen = _go_on(model, cache, seen, collate(music, left=True).to(model.device))
    rest: list[tuple[int, int, Prompt]] = []  # clip, number, what follows the music
    for clip, (prompts, end) in enumerate(zip(clips, ends, strict=True)):
        for p in prompts:
            left = Prompt(p.ids[end:], p.labels[end:], p.audio_features[end > begun :])
            rest.append((clip, len(rest), left))
    rest.sort(key=lambda each: len(each[2].ids))
    scored, wanted, owners = [], [], []
    for start in range(0, len(rest), ALIKE):
        group = rest[start : start + ALIKE]
        rows = [clip for clip, _, _ in group]
        batch = collate([prompt for _, _, prompt in group]).to(model.device)
        hidden, _ = _go_on(model, _rows_of(cache, rows), seen[rows], batch)
        labels = batch["labels"][:, 1:]
        learnt = labels != IGNORED
        scored.append(hidden[:, :-1][learnt])
        wanted.append(labels[learnt])
        numbers = torch.tensor([number for _, number, _ in group], device=model.device)
        owners.append(numbers.unsqueeze(1).expand_as(labels)[learnt])
    logits = model.language_model.get_output_embeddings()(torch.cat(scored))
    return F.cross_entropy(logits.float(), torch.cat(wanted), reduction="none"), torch.cat(owners)


def mean_log_likelihoods(
    model: MusiLingoForConditionalGeneration, prompts: Sequence[Prompt]
) -> Tensor:
    """(prompts,) float32: mean log probability a labelled token (nats), each prompt by itself.

    Args:
        model: Scores.
        prompts: Conversations about the same clip, or about none.
    """
    losses, owners = token_losses(model, [prompts])
    total = torch.zeros(len(prompts), device=losses.device)
    return -total.index_add(0, owners, losses) / owners.bincount(minlength=len(prompts))


def shared_length(prompts: Sequence[Prompt], audio_token_id: int) -> int:
    """How many tokens all prompts begin with, before any music and well before any label."""
    length = min(
        next(i for i, id_ in enumerate(p.ids) if id_ == audio_token_id or p.labels[i] != IGNORED)
        for p in prompts
    )
    first = prompts[0].ids[:length]
    while any(prompt.ids[:length] != first[:length] for prompt in prompts):
        length -= 1
    return max(length - 1, 0)  # the first label is foretold by the token before it


@torch.no_grad()
def opening_of(
    model: MusiLingoForConditionalGeneration, prompts: Sequence[Prompt]
) -> DynamicCache | None:
    """Key/value states of the instructions that all prompts begin with; None where there are none.

    Nothing in them depends on the projection: they are computed once for a whole run.
    """
    length = shared_length(prompts, model.config.audio_token_id)
    if not length:
        return None
    tokens = torch.tensor([prompts[0].ids[:length]], device=model.device)
    opening = DynamicCache(config=model.config.text_config)
    model.language_model.base_model(tokens, cache=opening, use_cache=True)
    return opening


def _rows_of(cache: DynamicCache, rows: list[int]) -> DynamicCache:
    """A cache of its own with some rows of another's batch; gradients flow through it."""
    chosen = DynamicCache()
    for number, layer in enumerate(cache.layers):
        if layer.keys is not None and layer.values is not None:  # an empty cache has neither
            chosen.update(layer.keys[rows], layer.values[rows], number)
    return chosen


def _music_end(prompt: Prompt, audio_token_id: int, begun: int) -> int:
    """How many tokens a prompt has up to the end of its first clip; `begun` where it has none."""
    if audio_token_id not in prompt.ids:
        return begun
    end = prompt.ids.index(audio_token_id)
    while prompt.ids[end] == audio_token_id:
        end += 1
    return end


def _go_on(
    model: MusiLingoForConditionalGeneration, cache: DynamicCache, seen: Tensor, batch: BatchFeature
) -> tuple[Tensor, Tensor]:
    """Hidden states of tokens that follow those in the cache, and the mask of all tokens."""
    audio = None
    if batch["audio_features"]:
        audio = model.get_audio_features(audio_features=batch["audio_features"])
    mask = torch.cat([seen, batch["attention_mask"]], dim=1)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, seen.shape[1] :]
    hidden = model.language_model.base_model(
        inputs_embeds=model.embed(batch["input_ids"], audio),
        attention_mask=mask,
        position_ids=positions,
        cache=cache,
        use_cache=True,
    ).last_hidden_state
    return hidden, mask
