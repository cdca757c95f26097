"""The record of llama.cpp's answers: it is whole, and transformers still answers as it says."""

from __future__ import annotations

import dataclasses

import pytest

from helpers import experiments
from helpers.experiments import llama_cpp
from helpers.finale import gguf_file


def test_the_record_has_every_question_from_every_file():
    record = experiments.read(llama_cpp.NAME)
    for kind in llama_cpp.KINDS:
        assert llama_cpp.same(record, "pocket Llama", kind)[1] == 24
        assert llama_cpp.same(record, "SmolLM2", kind)[1] == len(llama_cpp.ASKED)
    with pytest.raises(ValueError, match="no answers of 'SmolLM2' in 'Q4_0'"):
        llama_cpp.same(record, "SmolLM2", "Q4_0")


def test_same_counts_the_equal_answers():
    points = [{"case": "a", "kind": "F16", "transformers": "x", "llama.cpp": its} for its in ("x", "y", "x")]
    assert llama_cpp.same({"points": points}, "a", "F16") == (2, 3)


def test_transformers_still_gives_the_first_answers(tmp_path):
    ground = llama_cpp.pocket()
    points = [p for p in experiments.read(llama_cpp.NAME)["points"]
              if (p["case"], p["kind"]) == ("pocket Llama", "Q8_0")]
    assert [p["prompt"] for p in points] == ground.prompts
    path = gguf_file.write(ground.model, ground.tokenizer, tmp_path / "pocket.gguf", "Q8_0")
    few = dataclasses.replace(ground, prompts=ground.prompts[:4])
    assert llama_cpp.by_transformers(path, few) == [p["transformers"] for p in points[:4]]
