import pytest
import torch
from transformers import PreTrainedTokenizerFast

from musilingo_core.initialisation import draw, embed_words, fit_words
from musilingo_core.whitening import Whitened


@pytest.mark.parametrize("whitened", [False, True])
def test_a_drawn_projection_speaks_at_the_size_of_words(whitened: bool) -> None:
    dice = torch.Generator().manual_seed(0)
    rows = 3 * torch.randn(300, 40, generator=dice) + 1
    drawn: torch.nn.Linear | Whitened = torch.nn.Linear(40, 64)
    if whitened:
        drawn = Whitened(drawn, rows, 0.1)
    draw(drawn, rows, 0.02, 0)
    assert float(drawn(rows).detach().std()) == pytest.approx(0.02, rel=1e-3)
    before = drawn.weight.clone()
    draw(drawn, rows, 0.02, 0)
    assert torch.equal(drawn.weight, before)
    draw(drawn, rows, 0.02, 1)
    assert not torch.equal(drawn.weight, before)


def test_rows_that_are_all_alike_tell_no_size() -> None:
    rows = torch.ones(1, 40)
    drawn = Whitened(torch.nn.Linear(40, 64), rows, 0.1)
    draw(drawn, rows, 0.02, 0)
    assert torch.isfinite(drawn.weight).all() and bool(drawn.weight.any())


def test_what_rows_tell_is_fitted_and_what_they_do_not_is_the_mean() -> None:
    dice = torch.Generator().manual_seed(0)
    rows = torch.randn(2000, 6, generator=dice)
    noise = torch.randn(2000, generator=dice)
    wanted = torch.stack([2 * rows[:, 1] - rows[:, 4] + 3, 5 + noise], dim=1)
    linear = torch.nn.Linear(6, 2)
    fit_words(linear, rows, wanted)
    told, untold = linear(rows).T
    assert float((told - wanted[:, 0]).detach().std()) < 0.1 * float(wanted[:, 0].std())
    assert float(told.detach().mean()) == pytest.approx(3, abs=0.1)
    assert float(untold.std()) < 0.2 and float(untold.mean()) == pytest.approx(5, abs=0.1)


def test_words_of_several_tokens_are_their_mean(tokenizer: PreTrainedTokenizerFast) -> None:
    table = torch.randn(len(tokenizer), 4)
    (word,) = embed_words(["ab"], tokenizer, table)
    ids = tokenizer(" ab", add_special_tokens=False).input_ids
    torch.testing.assert_close(word, table[ids].mean(0))
    assert len(ids) == 3
