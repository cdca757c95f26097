"""The running picture: its rows are the formats of torch, ml_dtypes and bitsandbytes, and tell what the layer tells."""

import bitsandbytes.functional as bnb
import ml_dtypes
import numpy as np
import pytest
import torch

from helpers import plots
from helpers.drawings import eight
from helpers.pocket import load_pocket

LAYER = eight.layer()
WEIGHTS = eight.take(LAYER)


def test_the_eight_are_weights_of_the_pocket_llama_and_one_of_them_is_an_outlier():
    there = load_pocket()[0].get_parameter(eight.NAME).detach()
    assert torch.equal(there, LAYER) and torch.equal(there[29, 40:48], WEIGHTS)
    assert WEIGHTS.tolist() == pytest.approx([-.131, .017, .074, -.061, .041, .304, -.012, .049], abs=5e-4)
    (block,) = (b for b in LAYER.flatten().split(64) if torch.isin(WEIGHTS, b).all())
    assert WEIGHTS.max() == block.abs().max() > 2 * WEIGHTS.abs().sort().values[-2]


def by_bitsandbytes(double_quant, kind="nf4"):
    codes, state = bnb.quantize_4bit(LAYER, quant_type=kind, blocksize=64, compress_statistics=double_quant)
    return bnb.dequantize_4bit(codes, state)


@pytest.mark.parametrize("name, wanted", [
    ("fp16", lambda: LAYER.half().float()), ("bf16", lambda: LAYER.bfloat16().float()),
    ("fp8 e4m3", lambda: LAYER.to(torch.float8_e4m3fn).float()),
    ("fp8 e5m2", lambda: LAYER.to(torch.float8_e5m2).float()),
    ("fp4 e2m1", lambda: torch.tensor(LAYER.numpy().astype(ml_dtypes.float4_e2m1fn).astype(np.float32))),
    ("int8, one scale", lambda: torch.round(LAYER / (LAYER.abs().max() / 127)) * (LAYER.abs().max() / 127)),
    ("NF4, blocks of 64", lambda: by_bitsandbytes(False)), ("NF4, double quantization", lambda: by_bitsandbytes(True)),
])
def test_a_row_is_what_the_trusted_library_makes_of_the_layer(name, wanted):
    assert torch.equal(eight.rows(5)[name].values, eight.take(wanted()))


def test_bits_and_errors():
    rows = eight.rows(5)
    found = {name: (f"{row.bits:.2f}", f"{row.error:.4f}") for name, row in rows.items()}
    assert found == {
        "fp16": ("16.00", "0.0000"), "bf16": ("16.00", "0.0002"), "fp8 e4m3": ("8.00", "0.0039"),
        "fp8 e5m2": ("8.00", "0.0040"), "fp4 e2m1": ("4.00", "0.0930"), "int8, one scale": ("8.00", "0.0018"),
        "int4, one scale": ("4.00", "0.0363"), "int8, blocks of 64": ("8.50", "0.0006"),
        "int4, blocks of 64": ("4.50", "0.0108"), "FP4 E2M1, blocks of 64": ("4.50", "0.0103"),
        "NF4, blocks of 64": ("4.50", "0.0068"), "NF4, double quantization": ("4.13", "0.0069")}
    by_hand = np.sqrt(np.mean((rows["bf16"].values.double() - WEIGHTS.double()).numpy() ** 2))
    assert rows["bf16"].error == pytest.approx(by_hand) and eight.Row(WEIGHTS, 32).error == 0


def test_the_eight_tell_no_other_story_than_their_layer():
    story = ("int4, one scale", "int4, blocks of 64", "FP4 E2M1, blocks of 64", "NF4, blocks of 64")
    eights = [eight.rows(5)[name].error for name in story]
    whole = [(eight._restored()[name][0] - LAYER).square().mean().sqrt().item() for name in story]
    assert eights == sorted(eights, reverse=True) and whole == sorted(whole, reverse=True)


def test_rows_accumulate_from_lesson_to_lesson_and_are_not_spoilt_by_a_reader():
    names = [list(eight.rows(lesson)) for lesson in eight.LESSONS]
    assert [len(row) for row in names] == [5, 7, 9, 11, 12]
    assert all(later[:len(earlier)] == earlier for earlier, later in zip(names, names[1:], strict=False))
    eight.rows(1).clear()
    assert len(eight.rows(1)) == 5
    for lesson in (0, 6, "04", None):
        with pytest.raises(ValueError, match="lessons 1 to 5"):
            eight.rows(lesson)


def test_the_figure_has_a_dot_for_each_weight_and_says_bits_and_error():
    rows = eight.rows(3) | {"mine": eight.Row(WEIGHTS + 0.01, 5)}
    fig = eight.figure(rows)
    (ax,) = fig.axes
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in dots] == [row.values.tolist() for row in rows.values()]
    dark = [line.get_color() == plots.BLUE for line in dots]
    assert dark == [False] * 9 + [True]
    words = [text.get_text() for text in ax.texts]
    assert words[-2:] == ["5.00", "0.0100"] and "4.50" in words and len(words) == 2 + 2 * len(rows)
    low, high = ax.get_xlim()
    assert all(low < x < high for line in dots for x in line.get_xdata())
    assert not any(line.get_visible() for line in [*ax.get_xgridlines(), *ax.get_ygridlines()]), "no line under numbers"
    assert plots.png(fig) == plots.png(eight.figure(rows))
    assert [line.get_color() == plots.BLUE for line in eight.figure(eight.rows(3)).axes[0].lines
            if line.get_marker() == "o"] == [False] * 7 + [True] * 2


def test_the_alternative_text_says_every_number_of_the_figure():
    rows = eight.rows(5)
    text = eight.alt(rows)
    assert "seven within ±0.13 and one of 0.30" in text
    assert all(f"{name}: {row.bits:.2f} bits, error {row.error:.4f}" in text for name, row in rows.items())


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(ValueError, match="rows is empty"):
        eight.figure({})
    with pytest.raises(ValueError, match=r"shape \(8,\).*\(128, 320\)"):
        eight.take(WEIGHTS)
