import pytest
import torch

from musilingo_core.whitening import Whitened


@pytest.fixture
def rows() -> torch.Tensor:
    """500 rows of which one direction varies a hundred times as much as another."""
    dice = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=dice) * torch.tensor([10.0, 3, 1, 1, 0.3, 0.1])
    return torch.randn(500, 6, generator=dice) @ mixing.T + 5


def test_it_begins_as_the_layer_it_was_made_of(rows: torch.Tensor) -> None:
    linear = torch.nn.Linear(6, 4)
    torch.testing.assert_close(Whitened(linear, rows, 0.01)(rows), linear(rows), rtol=0, atol=1e-4)


def test_the_plain_layer_gives_the_same(rows: torch.Tensor) -> None:
    white = Whitened(torch.nn.Linear(6, 4), rows, 0.01)
    with torch.no_grad():
        white.inner.weight.normal_()
        white.inner.bias.normal_()
    torch.testing.assert_close(white.plain()(rows), white(rows), rtol=1e-3, atol=1e-3)


def test_inputs_become_alike_in_all_directions(rows: torch.Tensor) -> None:
    white = Whitened(torch.nn.Linear(6, 4), rows, 0.0)
    inside = (rows - white.mean) @ white.axes.T
    torch.testing.assert_close(torch.cov(inside.T), torch.eye(6) / 6, rtol=0, atol=1e-2)
    assert float(inside.norm(dim=1).square().mean()) == pytest.approx(1, rel=0.01)


def test_a_share_keeps_small_directions_small(rows: torch.Tensor) -> None:
    inside = (rows - rows.mean(0)) @ Whitened(torch.nn.Linear(6, 4), rows, 0.1).axes.T
    sizes = torch.linalg.eigvalsh(torch.cov(inside.T))
    assert float(sizes.max()) <= 1 / 6 and float(sizes.min()) < 0.01 / 6


def test_one_row_alone_is_no_trouble() -> None:
    white = Whitened(torch.nn.Linear(6, 4), torch.ones(1, 6), 0.1)
    assert torch.isfinite(white(torch.ones(1, 6))).all()
