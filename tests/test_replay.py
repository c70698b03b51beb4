from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.textbook import HistoryList
from ganparts import REPLAY_BUFFERS
from ganparts.replay import HistoryBuffer


@given(st.integers(1, 4), st.lists(st.integers(1, 4), min_size=1, max_size=8), st.integers(0, 2**31))
def test_history_is_the_papers_list_given_the_same_draws(size, batches, seed):
    torch.manual_seed(seed)
    history = HistoryBuffer(size)
    draws = [history.draw(batch, torch.device("cpu")) for batch in batches]
    flat = [(bool(swap), int(place)) for swaps, places in draws for swap, place in zip(swaps, places, strict=True)]
    plain = HistoryList(size, iter(flat))
    given_draws = iter(draws)
    history.draw = lambda batch, device: next(given_draws)
    for number, batch in enumerate(batches):
        images = torch.randn(batch, 1, 2, 2, requires_grad=True)
        returned = history(images)
        assert torch.equal(returned, plain(images)), number
        assert not returned.requires_grad
    stored = torch.stack(plain.images)
    assert torch.equal(history.images[: len(stored)], stored.detach())
    assert history.count == len(stored)


def test_draws_swap_half_of_the_time_and_reach_every_place():
    swaps, places = HistoryBuffer(5).draw(20_000, torch.device("cpu"))
    assert swaps.float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert torch.bincount(places, minlength=5).float().div(20_000).sub(0.2).abs().max() < 0.02


def test_state_is_saved_and_loading_takes_over_the_saved_shape():
    history = HistoryBuffer(3)
    history(torch.randn(5, 3, 4, 4))
    other = HistoryBuffer(7)
    other(torch.randn(1, 1, 2, 2))
    other.load_state_dict(history.state_dict())
    assert torch.equal(other.images, history.images)
    assert (other.size, int(other.count)) == (3, 3)
    torch.manual_seed(3)
    expected = history(torch.ones(4, 3, 4, 4))
    torch.manual_seed(3)
    assert torch.equal(other(torch.ones(4, 3, 4, 4)), expected)
    other.load_state_dict(HistoryBuffer(3).state_dict())  # saved before its first use
    assert other.count == 0
    assert not other.images.any()
    assert torch.equal(other(torch.ones(1, 3, 4, 4)), torch.ones(1, 3, 4, 4))
    assert other.count == 1


def test_it_is_allocated_at_first_use_on_the_images_device_and_type():
    history = HistoryBuffer(2)
    assert history.images is None
    history(torch.zeros(1, 3, 4, 4, dtype=torch.float64, device="meta"))
    assert (history.images.shape, history.images.dtype) == ((2, 3, 4, 4), torch.float64)
    assert history.images.device.type == history.count.device.type == "meta"


def test_it_keeps_its_own_type_and_gives_back_the_images():
    history = HistoryBuffer(1)
    history(torch.zeros(1, 3, 4, 4))
    for _ in range(6):
        assert history(torch.ones(1, 3, 4, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert history.images.dtype == torch.float32


def test_another_shape_and_a_useless_size_are_refused():
    history = HistoryBuffer(2)
    history(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"holds images of shape \(3, 4, 4\), but was given \(3, 8, 8\)"):
        history(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="size=0"):
        HistoryBuffer(0)


@pytest.mark.parametrize("name", REPLAY_BUFFERS)
def test_replay_contract(name: str):
    buffer = REPLAY_BUFFERS.create(name)
    for _ in range(3):
        images = torch.rand(2, 3, 4, 4)
        assert buffer(images).shape == images.shape
    assert torch.equal(REPLAY_BUFFERS.create(name)(images), images)
