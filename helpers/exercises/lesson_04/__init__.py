"""Lesson 04, NF4: nearest levels, what codes are worth, a block there and back, and where levels come from."""

from helpers.exercises.lesson_04.blocks import NF4_ROUND_TRIP, UNPACK_NF4
from helpers.exercises.lesson_04.codes import CODE_ENTROPY, NF4_CODE, NORMAL_LEVELS

EXERCISES = (NF4_CODE, CODE_ENTROPY, NF4_ROUND_TRIP, UNPACK_NF4, NORMAL_LEVELS)
