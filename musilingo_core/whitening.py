"""Coordinates in which features vary alike in all directions, to learn a projection in.

Inputs have a length of about 1 there, whatever their number: a learning rate that suits the bias
suits the weights too.

Songs differ much in loudness and little in who sings. A projection learnt from features as they are
learns what varies most, long before the rest. Nothing of this is left in the saved projection: a
linear layer after a linear change of coordinates is a linear layer.
"""

import torch
from torch import Tensor, nn

LEAST = 1e-6  # variance of a direction in which rows do not vary at all


class Whitened(nn.Module):
    """A linear layer, as a linear layer of whitened inputs.

    Args:
        linear: The layer to begin from; it is not changed.
        rows: (rows, size) float32, inputs as they will come.
        share: How much of the mean variance is added to each direction's, so that what hardly
            varies in these rows does not come to rule in others.
    """

    mean: Tensor
    axes: Tensor

    def __init__(self, linear: nn.Linear, rows: Tensor, share: float) -> None:
        super().__init__()
        rows = rows.double()
        spread = torch.cov(rows.T, correction=min(len(rows) - 1, 1))
        values, vectors = torch.linalg.eigh(spread)
        sizes = (values + share * values.mean()).clamp(min=LEAST) * linear.in_features
        sizes = sizes.sqrt().unsqueeze(1)
        self.register_buffer("mean", rows.mean(0).float().to(linear.weight.device))
        self.register_buffer("axes", (vectors.T / sizes).float().to(linear.weight.device))
        self.inner = nn.Linear(linear.in_features, linear.out_features, device=linear.weight.device)
        with torch.no_grad():
            back = (vectors.T * sizes).float().to(linear.weight.device)  # inverse of the axes
            self.inner.weight.copy_(linear.weight @ back.T)
            self.inner.bias.copy_(linear(self.mean))

    @property
    def weight(self) -> Tensor:
        """The inner layer's: tells device and precision as a linear layer's does."""
        return self.inner.weight

    @property
    def bias(self) -> Tensor:
        """The inner layer's."""
        return self.inner.bias

    def forward(self, rows: Tensor) -> Tensor:
        """(rows, size) to (rows, out)."""
        return self.inner((rows - self.mean) @ self.axes.T)

    @torch.no_grad()
    def plain(self) -> nn.Linear:
        """The linear layer that gives the same."""
        linear = nn.Linear(self.inner.in_features, self.inner.out_features)
        linear.to(self.inner.weight.device)
        linear.weight.copy_(self.inner.weight @ self.axes)
        linear.bias.copy_(self.inner.bias - linear.weight @ self.mean)
        return linear
