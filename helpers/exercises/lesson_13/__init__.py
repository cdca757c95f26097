"""Lesson 13, faster, longer, bigger: gradients that must stay the same, and what several processes hold and lose."""

from helpers.exercises.lesson_13.batches import ACCUMULATED_LOSS, PACKED_POSITIONS
from helpers.exercises.lesson_13.processes import WAITING_SHARE
from helpers.exercises.lesson_13.shards import SHARD_ROWS, WHOLE_CHECKPOINT

EXERCISES = (PACKED_POSITIONS, ACCUMULATED_LOSS, SHARD_ROWS, WAITING_SHARE, WHOLE_CHECKPOINT)
