"""Lesson 00, start here: what a model takes."""

from helpers.exercises.lesson_00.sizes import MODEL_BYTES

EXERCISES = (MODEL_BYTES,)
