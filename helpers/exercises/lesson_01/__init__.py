"""Lesson 01, float formats: reading and writing patterns, and what rounding does to sums, positions and casts."""

from helpers.exercises.lesson_01.encoding import NEAREST_MAGNITUDE
from helpers.exercises.lesson_01.patterns import DECODE_E4M3, FIRST_LOST_INTEGER
from helpers.exercises.lesson_01.rounding import BF16_BITS, SAFE_MEAN

EXERCISES = (DECODE_E4M3, NEAREST_MAGNITUDE, FIRST_LOST_INTEGER, SAFE_MEAN, BF16_BITS)
