"""The ledger's forecast of training beside the step itself, traced: four Llamas by batch, length, rank, checkpointing.

    python tests/bench_memory.py [names of models]
"""

from __future__ import annotations

import itertools
import sys
import time

from transformers import LlamaConfig

import helpers
from helpers.memory import GIB, LLAMAS, forecast_training, trace

TINY = LlamaConfig(hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32,
                   num_key_value_heads=4, vocab_size=32_000)
MODELS = {"TinyLlama-1.1B": TINY, **{name: LLAMAS[name] for name in ("Llama-2-7B", "Llama-2-13B", "Llama-2-70B")}}
SHAPES = [(True, 1, 512), (True, 1, 2048), (True, 4, 512), (True, 4, 2048), (False, 1, 512), (False, 4, 512)]


def main(names: list[str]) -> None:
    """Print a line per configuration: GiB traced and forecast, the difference, the peak's phase, seconds of a core."""
    helpers.start()
    print(f"{'':15} {'r':>3} {'batch':>8} {'kept':>6} {'traced':>8} {'ledger':>8} {'off by':>7}  {'peak in':9} seconds")
    for name, (checkpointing, batch, sequence), r in itertools.product(names, SHAPES, (8, 64)):
        settings = {"r": r, "batch": batch, "sequence": sequence, "checkpointing": checkpointing}
        start = time.process_time()
        traced = trace(MODELS[name], **settings)
        seconds = time.process_time() - start
        forecast = forecast_training(MODELS[name], **settings).total
        phase = max(traced.phases, key=traced.phases.get)
        print(f"{name:15} {r:3} {batch} × {sequence:4} {'inputs' if checkpointing else 'all':>6} "
              f"{traced.total / GIB:8.2f} {forecast / GIB:8.2f} {forecast / traced.total - 1:+7.1%}  {phase:9} "
              f"{seconds:7.1f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(MODELS))
