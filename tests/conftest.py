"""What all tests share: one thread, and a folder of its own for every test that trains."""

from __future__ import annotations

from pathlib import Path

import matplotlib  # noqa: F401 (a run's curve is drawn where it is here already, which is quicker)
import pytest
import torch

WORLDS = Path(__file__).with_name("worlds.py")


@pytest.fixture(autouse=True)
def _threads_of_torch():
    torch.set_num_threads(1)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory, where the runs of this test go."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
