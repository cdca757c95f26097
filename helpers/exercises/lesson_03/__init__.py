"""Lesson 03, block quantization: codes in blocks, two of them in a byte, whose scale is it, and weights to protect."""

from helpers.exercises.lesson_03.blocks import SCALE_INDEX, THROUGH_INT4
from helpers.exercises.lesson_03.build import BLOCK_CODES, PACK_CODES
from helpers.exercises.lesson_03.outliers import PROTECT_WEIGHTS
from helpers.exercises.lesson_03.storage import READ_NIBBLES

EXERCISES = (BLOCK_CODES, PACK_CODES, READ_NIBBLES, SCALE_INDEX, THROUGH_INT4, PROTECT_WEIGHTS)
