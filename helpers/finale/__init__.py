"""Lessons 10 and 11 on any machine: hub, machine, tiers, preflight, checkpoints, recorder, chat, sharing."""
