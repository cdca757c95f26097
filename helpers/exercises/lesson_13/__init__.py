"""Lesson 13, faster, longer, bigger: what several processes count, wait for, hold, lose and cost."""

from helpers.exercises.lesson_13.budgets import OPTIMIZER_STEPS, RUN_COST
from helpers.exercises.lesson_13.processes import LOSS_OF_STEP, WAITING_SHARE
from helpers.exercises.lesson_13.shards import SHARD_ROWS, WHOLE_CHECKPOINT

EXERCISES = (OPTIMIZER_STEPS, RUN_COST, SHARD_ROWS, LOSS_OF_STEP, WAITING_SHARE, WHOLE_CHECKPOINT)
