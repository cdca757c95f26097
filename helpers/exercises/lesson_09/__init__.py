"""Lesson 09, QLoRA: a gradient through codes, a layer made of them, checkpointing, pages, gradients by hand."""

from helpers.exercises.lesson_09.gradients import FROZEN_PRODUCT, QLORA_GRADIENTS, TRAIN_STEP
from helpers.exercises.lesson_09.weights import NF4_LINEAR, PAGE_OUT

EXERCISES = (FROZEN_PRODUCT, NF4_LINEAR, TRAIN_STEP, PAGE_OUT, QLORA_GRADIENTS)
