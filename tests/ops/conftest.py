from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """A test that fails, fails again."""
    torch.manual_seed(0)
