"""Lesson 07, ranks: what a rank costs and keeps, and what chance, scales and sums do to it."""

from helpers.exercises.lesson_07.products import ADAPTER_UPDATE, ADD_ADAPTERS, LOW_RANK_PART
from helpers.exercises.lesson_07.spectra import CHANCE_SIMILARITY, RANK_IN_BUDGET

EXERCISES = (LOW_RANK_PART, CHANCE_SIMILARITY, RANK_IN_BUDGET, ADAPTER_UPDATE, ADD_ADAPTERS)
