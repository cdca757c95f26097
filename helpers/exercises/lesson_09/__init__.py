"""Lesson 09, QLoRA: bytes that are kept or moved, dequantizing twice, and gradients by hand."""

from helpers.exercises.lesson_09.gradients import QLORA_GRADIENTS, TRAIN_STEP
from helpers.exercises.lesson_09.weights import DOUBLE_DEQUANT, PAGE_OUT, WORKSPACE_BYTES

EXERCISES = (WORKSPACE_BYTES, PAGE_OUT, DOUBLE_DEQUANT, TRAIN_STEP, QLORA_GRADIENTS)
