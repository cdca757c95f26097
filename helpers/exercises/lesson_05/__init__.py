"""Lesson 05, double quantization and the ledger: scales of scales, and every byte counted."""

from helpers.exercises.lesson_05.counting import COUNT_WEIGHTS, HIDDEN_BYTES
from helpers.exercises.lesson_05.scales import DOUBLE_DEQUANTIZE, QUANTIZE_SCALES, SCALE_BITS

EXERCISES = (SCALE_BITS, COUNT_WEIGHTS, HIDDEN_BYTES, DOUBLE_DEQUANTIZE, QUANTIZE_SCALES)
