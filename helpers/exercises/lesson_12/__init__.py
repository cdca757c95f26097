"""Lesson 12, three ways to tune: what a run needs, mixed losses, preferences, and rewards that can be checked."""

from helpers.exercises.lesson_12.equation import DPO_LOSS, SEQUENCE_LOGPS
from helpers.exercises.lesson_12.losses import IPO_LOSSES, MIXED_LOSS
from helpers.exercises.lesson_12.rewards import CHECKED_REWARDS, GROUP_ADVANTAGES
from helpers.exercises.lesson_12.setup import WHAT_IS_MISSING

EXERCISES = (SEQUENCE_LOGPS, DPO_LOSS, WHAT_IS_MISSING, MIXED_LOSS, CHECKED_REWARDS, GROUP_ADVANTAGES, IPO_LOSSES)
