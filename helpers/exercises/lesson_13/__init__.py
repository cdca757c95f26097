"""Lesson 13, faster, longer, bigger: tokens that need not be computed, and gradients that must stay the same."""

from helpers.exercises.lesson_13.batches import ACCUMULATED_LOSS, PACKED_POSITIONS

EXERCISES = (PACKED_POSITIONS, ACCUMULATED_LOSS)
