"""Lessons 10, 11 and 15 on any machine: hub, tiers, preflight, rows and faults, chat, recorder, sharing, report."""
