"""Lesson 05, double quantization and the ledger: scales of scales, and every byte counted."""

from helpers.exercises.lesson_05.counting import COUNT_WEIGHTS, HIDDEN_BYTES
from helpers.exercises.lesson_05.scales import DOUBLE_DEQUANTIZE, NESTED_BITS, QUANTIZE_SCALES

EXERCISES = (QUANTIZE_SCALES, HIDDEN_BYTES, COUNT_WEIGHTS, DOUBLE_DEQUANTIZE, NESTED_BITS)
