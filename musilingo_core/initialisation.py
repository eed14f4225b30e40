"""Where a projection begins: at random, or as near as a linear layer can to words.

Words make a beginning that a frozen language model can read: the first token of a row stands where
the first word stands, as far as features tell it, and so on. Learning goes on from there.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

RIDGE = 0.03  # of the features' mean variance, added to every direction's
LEAST = 1e-3  # spread of outputs under which rows are all alike and tell no size


@torch.no_grad()
def draw(projection: Any, rows: Tensor, size: float, seed: int) -> None:
    """Draws weights so that the output has the size of word embeddings.

    Args:
        projection: A linear layer, or one of whitened inputs; its weights are overwritten.
        rows: (rows, size), features as they will come.
        size: Standard deviation that the output is to have.
        seed: Of the draw.
    """
    dice = torch.Generator().manual_seed(seed)
    projection.weight.copy_(torch.randn(projection.weight.shape, generator=dice))
    projection.bias.zero_()
    projection.weight.mul_(size / projection(rows).std().clamp(min=LEAST))


@torch.no_grad()
def fit_words(linear: nn.Linear, rows: Tensor, wanted: Tensor) -> None:
    """Fits a layer by ridge regression.

    Args:
        linear: Is overwritten.
        rows: (clips, size) float32.
        wanted: (clips, out) float32, what it should give for each.
    """
    mean, target = rows.mean(0), wanted.mean(0)
    inputs = (rows - mean).double()
    spread = inputs.T @ inputs
    spread += RIDGE * spread.diagonal().mean() * torch.eye(len(spread), device=spread.device)
    solved = torch.linalg.solve(spread, inputs.T @ (wanted - target).double())
    linear.weight.copy_(solved.T)
    linear.bias.copy_(target - linear.weight @ mean)


@torch.no_grad()
def embed_words(words: Sequence[str], tokenizer: Any, embeddings: Tensor) -> Tensor:
    """(words, hidden) float32: the embedding of each word, a mean where it has several tokens."""
    ids = [tokenizer(f" {word}", add_special_tokens=False).input_ids for word in words]
    return torch.stack([embeddings[each].float().mean(0) for each in ids])
