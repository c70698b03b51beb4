from __future__ import annotations

import pytest
import torch
from hypothesis import settings

settings.register_profile("ganparts", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("ganparts")
torch.set_num_threads(1)  # the tests run in parallel, and their tensors are small


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
