"""The rank explorer, driven from Python, and the arithmetic of updates behind it."""

from __future__ import annotations

import math

import pytest
import torch

from helpers import low_rank
from helpers.explorers.ranks import cut_to_rank


def wide(seed: int = 0) -> torch.Tensor:
    return torch.randn(12, 30, generator=torch.Generator().manual_seed(seed))


def test_a_planted_update_is_whole_at_its_rank():
    explorer = cut_to_rank(r=4)
    assert explorer.error < 1e-5 and math.isclose(explorer.kept, 1, rel_tol=1e-5)
    assert "100.0%" in explorer.report() and "512 of 4,096 (12.5%)" in explorer.report()
    explorer.set(r=2)
    assert math.isclose(explorer.kept, (16 + 9) / 30, rel_tol=1e-4)
    assert math.isclose(explorer.error, math.sqrt(5 / 30), rel_tol=1e-4)
    explorer.set(noise=0.5, r=4)
    assert 0.3 < explorer.error < 0.9


def test_controls_set_what_is_shown_and_show_what_is_set():
    explorer = cut_to_rank({"wide": wide()}, r=40)
    explorer.controls["update"].value = "wide"
    assert (explorer.update, explorer.r, explorer.controls["r"].max, explorer.parameters) == ("wide", 12, 12, 12 * 42)
    assert [explorer.controls[name].layout.display for name in ("true_rank", "noise")] == ["none", "none"]
    explorer.controls["r"].value = 3
    assert explorer.r == 3 and "3 of 12" in explorer.shown.value and explorer.shown.value.count("<rect") == 12
    explorer.set(update="planted", true_rank=9)
    assert explorer.controls["true_rank"].value == 9 and explorer.controls["r"].max == 64
    assert explorer.controls["true_rank"].layout.display is None
    explorer.controls["noise"].value = 1.0
    assert explorer.noise == 1.0 and 'class="ranks"' in explorer.shown.value


def test_an_update_of_zeros_is_shown():
    explorer = cut_to_rank({"nothing": torch.zeros(8, 8)})
    explorer.set(update="nothing", r=2)
    assert explorer.error == 0 and "0.0%" in explorer.report() and "nan" not in explorer.shown.value


# ---------------------------------------------------------------------------------------------- helpers.low_rank

@pytest.mark.parametrize("r", [1, 5, 12])
def test_best_pair_leaves_the_singular_values_left_out(r):
    update = wide().double()
    B, A = low_rank.best_pair(update, r)
    assert B.shape == (12, r) and A.shape == (r, 30)
    left = torch.linalg.svdvals(update)[r:].square().sum().sqrt()
    assert torch.allclose((update - B @ A).norm(), left, atol=1e-10)
    kept = low_rank.energy_kept(update)[r - 1]
    assert torch.isclose((B @ A).norm() ** 2 / update.norm() ** 2, kept)


def test_similarity_is_one_inside_and_zero_outside_and_symmetric():
    Q = torch.linalg.qr(wide().T.double()).Q.T  # 12 orthonormal rows of 30
    assert torch.allclose(low_rank.similarity_map(Q[:4], Q)[3, 3:], torch.ones(9).double())
    assert low_rank.similarity_map(Q[:4], Q[4:]).abs().max() < 1e-20
    other = low_rank.directions(wide(1).double(), 6)
    assert torch.allclose(low_rank.similarity_map(Q, other), low_rank.similarity_map(other, Q).T)
    direct = torch.linalg.matrix_norm(Q[:5] @ other[:3].T) ** 2 / 3
    assert torch.isclose(low_rank.similarity_map(Q, other)[4, 2], direct)


def test_chance_is_the_mean_over_random_subspaces():
    draw = torch.Generator().manual_seed(0)
    maps = []
    for _ in range(400):
        X, Y = (torch.linalg.qr(torch.randn(24, 8, generator=draw)).Q.T for _ in range(2))
        maps.append(low_rank.similarity_map(X[:3], Y))
    assert torch.allclose(torch.stack(maps).mean(0), low_rank.chance_map(3, 8, 24), atol=0.015)


def test_planted_has_its_rank():
    sigma = low_rank.singular_values(low_rank.planted(5))
    assert torch.allclose(sigma[:5], torch.tensor([5.0, 4, 3, 2, 1]), atol=1e-4) and sigma[5:].max() < 1e-4


def test_planted_noise_has_the_size_that_is_said_and_the_seed_decides():
    plain, noisy = low_rank.planted(3), low_rank.planted(3, 0.25)
    assert plain.shape == (64, 64) and low_rank.planted(2, size=8).shape == (8, 8)
    assert torch.linalg.svdvals(noisy - plain)[0].item() == pytest.approx(2 * 0.25, rel=0.1)
    assert torch.equal(plain, low_rank.planted(3, 0.0, 64, 0)) and not torch.equal(plain, low_rank.planted(3, seed=1))
    for rank in (1, 8):  # as few and as many as there can be
        assert torch.linalg.matrix_rank(low_rank.planted(rank, size=8)) == rank


def test_energy_rises_to_one_and_is_zero_for_zeros():
    kept = low_rank.energy_kept(torch.diag(torch.tensor([3.0, 4.0, 0.0])))
    assert torch.allclose(kept, torch.tensor([16 / 25, 1, 1]))
    assert torch.equal(low_rank.energy_kept(torch.zeros(2, 3)), torch.zeros(2))


def test_directions_are_what_the_matrix_answers_to_most():
    matrix = wide().double()
    first = low_rank.directions(matrix, 2)
    assert torch.allclose((matrix @ first.T).norm(dim=0), low_rank.singular_values(matrix)[:2])
    assert torch.allclose(first @ first.T, torch.eye(2).double())


@pytest.mark.parametrize("call, said", [
    (lambda: low_rank.best_pair(wide(), 13), "r=13.*\\(12, 30\\)"),
    (lambda: low_rank.best_pair(wide(), 2.0), "r=2.0"), (lambda: low_rank.directions(wide(), 0), "r=0"),
    (lambda: low_rank.singular_values(wide().half()), "torch.float16"),
    (lambda: low_rank.singular_values(torch.zeros(3)), "shape \\(3,\\)"),
    (lambda: low_rank.singular_values(torch.zeros(0, 3)), "shape \\(0, 3\\)"),
    (lambda: low_rank.energy_kept(torch.full((2, 2), math.nan)), "NaN"),
    (lambda: low_rank.planted(0), "rank=0"),
    (lambda: low_rank.planted(9, size=8), "rank=9"), (lambda: low_rank.planted(1, -0.1), "noise=-0.1"),
    (lambda: low_rank.planted(1, math.nan), "noise=nan"), (lambda: low_rank.singular_values(wide()[None]), "1, 12, 30"),
    (lambda: low_rank.directions(torch.full((2, 2), math.inf), 1), "infinity"),
    (lambda: cut_to_rank({"bad": torch.zeros(3)}), "shape \\(3,\\)"),
])
def test_bad_input_is_named(call, said):
    with pytest.raises(ValueError, match=said):
        call()
