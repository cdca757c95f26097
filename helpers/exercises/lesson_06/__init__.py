"""Lesson 06, LoRA from scratch: the layer, what moves first, merging once, dropout, and the backward pass by hand."""

from helpers.exercises.lesson_06.gradients import BRANCH_GRADIENTS, MOVES_FIRST
from helpers.exercises.lesson_06.layers import FORWARD_WITH_DROPOUT
from helpers.exercises.lesson_06.updates import LORA_FORWARD, MERGED_WEIGHT

EXERCISES = (LORA_FORWARD, MOVES_FIRST, MERGED_WEIGHT, FORWARD_WITH_DROPOUT, BRANCH_GRADIENTS)
