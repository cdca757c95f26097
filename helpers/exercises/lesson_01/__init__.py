"""Lesson 01, float formats: reading patterns, and what rounding does to sums, positions and casts."""

from helpers.exercises.lesson_01.patterns import DECODE_E4M3, FIRST_LOST_INTEGER, LARGEST_VALUE
from helpers.exercises.lesson_01.rounding import BF16_BITS, SAFE_MEAN

EXERCISES = (LARGEST_VALUE, DECODE_E4M3, FIRST_LOST_INTEGER, SAFE_MEAN, BF16_BITS)
