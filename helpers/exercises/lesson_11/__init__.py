"""Lesson 11, merge and share: what a merge changes, and what an adapter holds."""

from helpers.exercises.lesson_11.files import UNTRAINED_LAYERS
from helpers.exercises.lesson_11.merges import MERGE_AS_TRAINED, MERGE_WEIGHT, ROOM_TO_MOVE

EXERCISES = (ROOM_TO_MOVE, MERGE_WEIGHT, UNTRAINED_LAYERS, MERGE_AS_TRAINED)
