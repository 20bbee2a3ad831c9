"""The likeliest of each row, against torch's own softmax, sort and argmax."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from activations.forward.ranking import rank

NONE = np.full((40, 1), -1)


def random(
    rows: int = 40, vocabulary: int = 300, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    return (torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(0)) * 4).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_the_likeliest_and_where_others_stand(dtype: torch.dtype) -> None:
    logits = random(dtype=dtype)
    wanted = torch.randint(0, 300, (40, 3), generator=torch.Generator().manual_seed(1))
    found = rank([logits], 5, wanted.numpy())
    wide = logits.float()
    order = wide.sort(dim=-1, descending=True, stable=True)  # of equal ones the lower id first
    probabilities = wide.double().softmax(-1)
    np.testing.assert_array_equal(found.ids, order.indices[:, :5])
    np.testing.assert_array_equal(found.ids[:, 0], wide.argmax(-1))
    of_ids = probabilities.gather(1, order.indices[:, :5])
    np.testing.assert_allclose(found.probabilities, of_ids, rtol=1e-5)
    of_wanted = probabilities.gather(1, wanted)
    np.testing.assert_allclose(found.wanted.probability, of_wanted, rtol=1e-5)
    above = wide[:, None, :] > wide.gather(1, wanted)[:, :, None]
    np.testing.assert_array_equal(found.wanted.rank, above.sum(-1) + 1)


def test_bfloat16_has_many_equal_logits() -> None:
    logits = random(dtype=torch.bfloat16)
    found = rank([logits], 50, NONE)
    ties = [len(set(row[ids].tolist())) < 50 for row, ids in zip(logits, found.ids, strict=True)]
    assert any(ties)


def test_part_by_part() -> None:
    logits, wanted = random(), np.arange(40)[:, None]
    whole = rank([logits], 3, wanted)
    parts = rank(iter(logits.split(7)), 3, wanted)
    for name in ("ids", "probabilities"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    np.testing.assert_array_equal(parts.wanted.rank, whole.wanted.rank)


def test_labels_with_a_probability_each() -> None:
    logits = random(vocabulary=4)
    found = rank([logits], 9, NONE, independent=True)
    assert found.ids.shape == (40, 4)  # there are no more
    expected = logits.double().sigmoid().sort(-1, descending=True).values
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-5)


def test_no_token_is_wanted() -> None:
    found = rank([random()], 2, NONE)
    assert not found.wanted.rank.any()
    assert np.isnan(found.wanted.probability).all()


def test_logits_that_are_no_numbers() -> None:
    logits = random()
    logits[0, 7] = torch.nan
    logits[1, 7] = torch.inf
    logits[2, 7] = -torch.inf  # a token that the model rules out
    logits[3] = torch.nan
    found = rank([logits], 2, np.full((40, 1), 7))
    assert np.isnan(found.probabilities[[0, 1, 3]]).all()
    assert np.isfinite(found.probabilities[[2, *range(4, 40)]]).all()
    assert 7 not in found.ids[0]
    assert found.ids[1, 0] == 7
    assert found.wanted.rank[2, 0] == 300
    assert found.wanted.probability[2, 0] == 0
