"""Lesson 12, three ways to tune: what a run needs, mixed losses, preferences, and rewards that can be checked."""

from helpers.exercises.lesson_12.equation import DPO_LOSS, SEQUENCE_LOGPS

EXERCISES = (SEQUENCE_LOGPS, DPO_LOSS)
