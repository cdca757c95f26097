"""Lesson 11, merge and share: what a merge changes, what an adapter holds, and what stays at home."""

from helpers.exercises.lesson_11.files import LEAVE_AT_HOME, UNTRAINED_LAYERS
from helpers.exercises.lesson_11.merges import MERGE_AS_TRAINED, MERGE_WEIGHT, ROOM_TO_MOVE

EXERCISES = (LEAVE_AT_HOME, MERGE_WEIGHT, ROOM_TO_MOVE, UNTRAINED_LAYERS, MERGE_AS_TRAINED)
