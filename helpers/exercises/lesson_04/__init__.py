"""Lesson 04, NF4: where its levels come from, the nearest one, a block there and back, and levels with less error."""

from helpers.exercises.lesson_04.blocks import NF4_ROUND_TRIP, UNPACK_NF4
from helpers.exercises.lesson_04.codes import NF4_CODE, NORMAL_LEVELS, WEIGHTED_LEVELS

EXERCISES = (NORMAL_LEVELS, NF4_CODE, NF4_ROUND_TRIP, UNPACK_NF4, WEIGHTED_LEVELS)
