"""Lesson 02, absmax quantization: scales and zero points, and products of codes."""

from helpers.exercises.lesson_02.products import INT8_LINEAR, SHIFTED_PRODUCT
from helpers.exercises.lesson_02.scales import ABSMAX_QUANTIZE, CALIBRATED_CODES, ZEROPOINT_VALUES

EXERCISES = (ABSMAX_QUANTIZE, INT8_LINEAR, ZEROPOINT_VALUES, CALIBRATED_CODES, SHIFTED_PRODUCT)
