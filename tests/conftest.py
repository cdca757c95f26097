"""What several test modules share: made once, and only read."""

from __future__ import annotations

from pathlib import Path

import pytest
import standins


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A checkpoint in the layout of Llama-2-7b-hf, 9 MB."""
    return standins.write_llama2_checkpoint(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def guanaco(tmp_path_factory) -> Path:
    """A data set like guanaco-llama2-1k, 20 rows."""
    return standins.write_guanaco(tmp_path_factory.mktemp("guanaco"))


@pytest.fixture(scope="module")
def pocket():
    """The pocket Llama; a test that changes it takes a copy."""
    from helpers.pocket import load_pocket

    return load_pocket()[0]
