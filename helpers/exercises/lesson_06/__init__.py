"""Lesson 06, LoRA from scratch: the update, its branch, what moves first, what is frozen, and merging once."""

from helpers.exercises.lesson_06.gradients import BRANCH_GRADIENTS, MOVES_FIRST
from helpers.exercises.lesson_06.layers import FORWARD_WITH_DROPOUT, NAMES_TO_FREEZE
from helpers.exercises.lesson_06.updates import MERGED_WEIGHT, UPDATE_WEIGHT

EXERCISES = (UPDATE_WEIGHT, MOVES_FIRST, FORWARD_WITH_DROPOUT, NAMES_TO_FREEZE, MERGED_WEIGHT, BRANCH_GRADIENTS)
