"""The pocket Llama: a real LlamaForCausalLM of 951,424 parameters that ships with the course."""

from __future__ import annotations

import pathlib

WEIGHTS = pathlib.Path(__file__).parent / "weights"
ADAPTER = pathlib.Path(__file__).parent / "adapter"


def load_pocket(tuned: bool = False):
    """The base model in float32 and its tokenizer; with `tuned`, behind the instruction adapter that lesson 10 trains.

    Returns (LlamaForCausalLM or PeftModel in evaluation mode, PreTrainedTokenizerFast). Nothing is downloaded.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    model = AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32)
    if tuned:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, ADAPTER)
    return model.eval(), tokenizer
