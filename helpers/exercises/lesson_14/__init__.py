"""Lesson 14, four bits after NF4: blocks of files and of GPUs, which weights matter, and PiSSA."""

from helpers.exercises.lesson_14.blocks import CODES_IN_ORDER, Q4_1_VALUES
from helpers.exercises.lesson_14.channels import COMPENSATE, FOLD
from helpers.exercises.lesson_14.pissa import AS_LORA
from helpers.exercises.lesson_14.scales import E8M0_SCALE, NVFP4_SCALES

EXERCISES = (Q4_1_VALUES, E8M0_SCALE, NVFP4_SCALES, COMPENSATE, CODES_IN_ORDER, FOLD, AS_LORA)
