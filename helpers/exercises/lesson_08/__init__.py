"""Lesson 08, the PEFT family: a bottleneck, lengths of DoRA, one batch for many adapters, a prompt, what merges."""

from helpers.exercises.lesson_08.batches import ANSWER_EACH
from helpers.exercises.lesson_08.bottlenecks import BOTTLENECK, MERGE_BRANCH
from helpers.exercises.lesson_08.relatives import DORA_WEIGHT, TEXT_LOSS

EXERCISES = (BOTTLENECK, DORA_WEIGHT, ANSWER_EACH, TEXT_LOSS, MERGE_BRANCH)
