"""Lesson 02, absmax quantization: scales and zero points, and products of codes."""

from helpers.exercises.lesson_02.products import INT8_LINEAR, SHIFTED_PRODUCT
from helpers.exercises.lesson_02.scales import ABSMAX_CODES, CALIBRATED_CODES, ZEROPOINT_VALUES

EXERCISES = (ABSMAX_CODES, ZEROPOINT_VALUES, CALIBRATED_CODES, INT8_LINEAR, SHIFTED_PRODUCT)
