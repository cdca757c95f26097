"""Lesson 08, the PEFT family: a bottleneck by hand, lengths of DoRA, logits of a prompt, many adapters in one batch."""

from helpers.exercises.lesson_08.batches import ANSWER_EACH
from helpers.exercises.lesson_08.bottlenecks import BOTTLENECK, BOTTLENECK_WEIGHTS
from helpers.exercises.lesson_08.relatives import DORA_WEIGHT, TEXT_LOSS

EXERCISES = (BOTTLENECK_WEIGHTS, BOTTLENECK, TEXT_LOSS, DORA_WEIGHT, ANSWER_EACH)
