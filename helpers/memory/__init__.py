"""What a model and its training hold in memory, three ways: counted, forecast from a config, traced step by step.

`measure` counts a model that is there; `forecast_weights` and `forecast_training` are arithmetic on a config; `trace`
runs the libraries' own training step on tensors without data. Bytes everywhere, each storage once.
"""

from helpers.memory.forecast import (
    LLAMAS,
    TILE,
    census,
    forecast_training,
    forecast_weights,
    layer_activations,
    linear_shapes,
    lora_weights,
    skeleton,
)
from helpers.memory.ledger import CARDS, GIB, HELD, Ledger, measure, smallest_card
from helpers.memory.tracing import Trace, trace

__all__ = [
    "CARDS", "GIB", "HELD", "LLAMAS", "TILE", "Ledger", "Trace", "census", "forecast_training", "forecast_weights",
    "layer_activations", "linear_shapes", "lora_weights", "measure", "skeleton", "smallest_card", "trace",
]
