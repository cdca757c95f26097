"""Lesson 13, faster, longer, bigger: gradients that must stay the same, and what several processes hold and cost."""

from helpers.exercises.lesson_13.batches import ACCUMULATED_LOSS, PACKED_POSITIONS
from helpers.exercises.lesson_13.budgets import OPTIMIZER_STEPS, RUN_COST
from helpers.exercises.lesson_13.processes import LOSS_OF_STEP
from helpers.exercises.lesson_13.shards import SHARD_ROWS

EXERCISES = (PACKED_POSITIONS, ACCUMULATED_LOSS, OPTIMIZER_STEPS, RUN_COST, SHARD_ROWS, LOSS_OF_STEP)
