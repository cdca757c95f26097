"""Lesson 10, the finale: what goes wrong between a good recipe and a good model."""

from helpers.exercises.lesson_10.checkpoints import NEWEST_COMPLETE_CHECKPOINT
from helpers.exercises.lesson_10.rows import MASK_LABELS
from helpers.exercises.lesson_10.settings import CHOOSE_PRECISION, LORA_PARAMETERS, SHARE_MOVED

EXERCISES = (CHOOSE_PRECISION, MASK_LABELS, LORA_PARAMETERS, SHARE_MOVED, NEWEST_COMPLETE_CHECKPOINT)
