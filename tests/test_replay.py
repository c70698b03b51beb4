from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.textbook import HistoryList
from ganparts import REPLAY_BUFFERS
from ganparts.replay import HistoryBuffer, QueueBuffer


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


@given(st.integers(1, 4), st.lists(st.integers(1, 4), min_size=1, max_size=8))
def test_queue_returns_the_image_made_as_many_images_earlier_as_it_holds(size, batches):
    queue, made = QueueBuffer(size), []
    for batch in batches:
        images = torch.randn(batch, 1, 2, 2, requires_grad=True)
        made += images.detach().split(1)
        numbers = range(len(made) - batch, len(made))
        expected = torch.cat([made[number - size] if number >= size else made[number] for number in numbers])
        returned = queue(images)
        assert torch.equal(returned, expected)
        assert not returned.requires_grad
    assert queue.count == len(made)


@pytest.mark.parametrize("buffer", [HistoryBuffer, QueueBuffer])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_an_image_that_is_not_finite_is_returned_but_never_stored(buffer, bad):
    memory = buffer(3)
    memory.draw = lambda batch, device: (torch.ones(batch, dtype=torch.bool), torch.arange(batch) % 3)
    batches = [torch.rand(3, 1, 2, 2) for _ in range(4)]
    for step, images in enumerate(batches):  # while it is filled, and once it is full
        images[1, 0, 0, 0] = bad
        count = int(memory.count)
        returned = memory(images)
        assert torch.equal(returned[1], images[1]) or returned[1].isnan().any()
        assert memory.images.isfinite().all()
        assert returned[[0, 2]].isfinite().all()
        assert memory.count == (min(count + 2, 3) if buffer is HistoryBuffer else count + 2), step
    sound = torch.rand(3, 1, 2, 2)
    assert memory(sound).isfinite().all()


def test_an_image_beyond_the_range_of_the_stored_type_is_not_stored():
    memory = HistoryBuffer(1)
    memory(torch.zeros(1, 1, 2, 2, dtype=torch.float16))
    for _ in range(6):
        memory(torch.full((1, 1, 2, 2), 1e6))
    assert not memory.images.any()


@pytest.mark.parametrize("buffer", [HistoryBuffer, QueueBuffer])
def test_state_is_saved_and_loading_takes_over_the_saved_shape(buffer):
    history = buffer(3)
    history(torch.randn(5, 3, 4, 4))
    other = buffer(7)
    other(torch.randn(1, 1, 2, 2))
    other.load_state_dict(history.state_dict())
    assert torch.equal(other.images, history.images)
    assert other.size == 3
    assert other.count == history.count >= 3
    torch.manual_seed(3)
    expected = history(torch.ones(4, 3, 4, 4))
    torch.manual_seed(3)
    assert torch.equal(other(torch.ones(4, 3, 4, 4)), expected)
    other.load_state_dict(buffer(3).state_dict())  # saved before its first use
    assert other.count == 0
    assert not other.images.any()
    assert torch.equal(other(torch.ones(1, 3, 4, 4)), torch.ones(1, 3, 4, 4))
    assert other.count == 1


@pytest.mark.parametrize("buffer", [HistoryBuffer, QueueBuffer])
def test_it_is_allocated_at_first_use_on_the_images_device_and_type(buffer):
    history = buffer(2)
    assert history.images is None
    history(torch.zeros(1, 3, 4, 4, dtype=torch.float64, device="meta"))
    assert (history.images.shape, history.images.dtype) == ((2, 3, 4, 4), torch.float64)
    assert history.images.device.type == history.count.device.type == "meta"


@pytest.mark.parametrize("buffer", [HistoryBuffer, QueueBuffer])
def test_it_keeps_its_own_type_and_gives_back_the_images(buffer):
    history = buffer(1)
    history(torch.zeros(1, 3, 4, 4))
    for _ in range(6):
        assert history(torch.ones(1, 3, 4, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert history.images.dtype == torch.float32


def test_another_shape_and_a_useless_size_are_refused():
    history = HistoryBuffer(2)
    history(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"holds images of shape \(3, 4, 4\), but was given \(3, 8, 8\)"):
        history(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="size=0: a history"):
        HistoryBuffer(0)
    queue = QueueBuffer(2)
    queue(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"this queue holds images of shape \(3, 4, 4\), but was given \(3, 8, 8\)"):
        queue(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="size=0: a queue"):
        QueueBuffer(0)


@pytest.mark.parametrize("name", REPLAY_BUFFERS)
def test_a_new_buffer_returns_what_it_is_given(name: str):
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(REPLAY_BUFFERS.create(name)(images), images)


def test_history_holds_as_many_images_as_the_papers_by_default():
    """Of 50; tests elsewhere give a size."""
    assert {REPLAY_BUFFERS.create("history").size, HistoryBuffer().size} == {50}
