"""Lesson 03, block quantization: what a scale costs, bytes of two codes, blocks, and weights worth protecting."""

from helpers.exercises.lesson_03.blocks import SCALE_INDEX, THROUGH_INT4
from helpers.exercises.lesson_03.outliers import PROTECT_WEIGHTS
from helpers.exercises.lesson_03.storage import BITS_PER_WEIGHT, READ_NIBBLES

EXERCISES = (BITS_PER_WEIGHT, READ_NIBBLES, SCALE_INDEX, THROUGH_INT4, PROTECT_WEIGHTS)
