"""Lesson 12, three ways to tune: what a run needs, mixed losses, preferences, and rewards that can be checked."""

from helpers.exercises.lesson_12.losses import DRIFT, IPO_LOSSES, MIXED_LOSS
from helpers.exercises.lesson_12.rewards import CHECKED_REWARDS, GROUP_ADVANTAGES
from helpers.exercises.lesson_12.setup import WHAT_IS_MISSING

EXERCISES = (WHAT_IS_MISSING, MIXED_LOSS, DRIFT, CHECKED_REWARDS, GROUP_ADVANTAGES, IPO_LOSSES)
