"""Answers to lesson 00's exercises that nobody registered, written from the prompts alone."""

import math
from fractions import Fraction

from corpus import right, wrong


@wrong("model_bytes", "rounds down: the begun last byte is dropped")
def _(parameters, bits):
    return parameters * bits // 8


@wrong("model_bytes", "whole bytes per number first: bits // 8, which is 0 for 4 bits")
def _(parameters, bits):
    return parameters * (bits // 8)


@wrong("model_bytes", "each number gets whole bytes of its own, so nothing is packed")
def _(parameters, bits):
    return parameters * math.ceil(bits / 8)


@wrong("model_bytes", "returns bits, never divided by 8")
def _(parameters, bits):
    return parameters * bits


@wrong("model_bytes", "always adds a byte, even if the bits fill the last one exactly")
def _(parameters, bits):
    return parameters * bits // 8 + 1


@wrong("model_bytes", "rounds to the nearest byte instead of up")
def _(parameters, bits):
    return round(parameters * bits / 8)


@wrong("model_bytes", "leaves a fraction of a byte: a float, not whole bytes")
def _(parameters, bits):
    return parameters * bits / 8


@wrong("model_bytes", "no number may cross a byte's border: leaves gaps for 3, 5, 6, 7 bits")
def _(parameters, bits):
    if bits > 8:
        return -(-parameters * bits // 8)
    per_byte = 8 // bits
    return -(-parameters // per_byte)


@right("model_bytes", "divmod, and one byte more if a rest remains")
def _(parameters, bits):
    whole, rest = divmod(parameters * bits, 8)
    return whole + (rest > 0)


@right("model_bytes", "exact fraction, ceiling")
def _(parameters, bits):
    return math.ceil(Fraction(parameters) * Fraction(bits, 8))


@right("model_bytes", "shift after adding seven")
def _(parameters, bits):
    return (parameters * bits + 7) >> 3
