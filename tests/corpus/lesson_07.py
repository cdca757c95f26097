"""Answers to lesson 07's exercises that nobody registered, written from the prompts alone."""

import bisect
import math
from fractions import Fraction

import numpy as np
import torch

from corpus import right, wrong

# rank_in_budget


@wrong("rank_in_budget", "caps r at the smaller side of the first matrix only")
def _(shapes, budget):
    return min(budget // sum(d + k for d, k in shapes), min(shapes[0]))


@wrong("rank_in_budget", "must stay below the budget, may not meet it exactly")
def _(shapes, budget):
    r, per_rank = 0, sum(d + k for d, k in shapes)
    while (r + 1) * per_rank < budget and r < min(map(min, shapes)):
        r += 1
    return r


@wrong("rank_in_budget", "rounds to the nearest rank, which can exceed the budget")
def _(shapes, budget):
    return min(round(budget / sum(d + k for d, k in shapes)), min(min(shape) for shape in shapes))


@wrong("rank_in_budget", "tries powers of two only")
def _(shapes, budget):
    r, per_rank, cap = 1, sum(map(sum, shapes)), min(map(min, shapes))
    if per_rank > budget:
        return 0
    while 2 * r * per_rank <= budget and 2 * r <= cap:
        r *= 2
    return r


@wrong("rank_in_budget", "never gives less than rank 1, though the budget does not pay it")
def _(shapes, budget):
    return max(1, min(budget // sum(map(sum, shapes)), min(map(min, shapes))))


@wrong("rank_in_budget", "shares the budget equally among the matrices")
def _(shapes, budget):
    share = budget // len(shapes)
    return min(min(share // (d + k), d, k) for d, k in shapes)  # right where all matrices are alike


@wrong("rank_in_budget", "range() ends before the smaller side, so r never reaches it")
def _(shapes, budget):
    per_rank, best = sum(map(sum, shapes)), 0
    for r in range(1, min(map(min, shapes))):
        if r * per_rank <= budget:
            best = r
    return best


@wrong("rank_in_budget", "counts matrices of equal shape once only")
def _(shapes, budget):
    per_rank = sum(d + k for d, k in set(shapes))
    return min(budget // per_rank, min(min(shape) for shape in shapes))


@right("rank_in_budget", "bisects the ranks by what they cost")
def _(shapes, budget):
    ranks = range(1, min(min(shape) for shape in shapes) + 1)
    return bisect.bisect_right(ranks, budget, key=lambda r: sum(r * d + k * r for d, k in shapes))


@right("rank_in_budget", "pays rank after rank from the budget")
def _(shapes, budget):
    r = 0
    while all(r < side for shape in shapes for side in shape):
        budget -= sum(map(sum, shapes))
        if budget < 0:
            break
        r += 1
    return r


@right("rank_in_budget", "numpy over the array of shapes")
def _(shapes, budget):
    sides = np.array(shapes, dtype=np.int64)
    return int(np.minimum(np.floor_divide(budget, sides.sum()), sides.min()))


# chance_similarity


@wrong("chance_similarity", "always j / k: right only where i is the smaller")
def _(i, j, k):
    return j / k


@wrong("chance_similarity", "divides by the larger of i and j, so the smaller is left")
def _(i, j, k):
    return i * (j / k) / max(i, j)


@wrong("chance_similarity", "forgets to divide by min(i, j)")
def _(i, j, k):
    return i * j / k


@wrong("chance_similarity", "counts only the dimensions that must overlap, i + j - k")
def _(i, j, k):
    return max(0, i + j - k) / min(i, j)


@wrong("chance_similarity", "rounds the result to two decimals")
def _(i, j, k):
    return round(max(i, j) / k, 2)


@wrong("chance_similarity", "geometric mean of i and j over k: right for equal sizes only")
def _(i, j, k):
    return math.sqrt(i * j) / k


@wrong("chance_similarity", "takes the square root: a length, not a squared one")
def _(i, j, k):
    return math.sqrt(max(i, j) / k)


@wrong("chance_similarity", "measures one random pair instead of the mean over all")
def _(i, j, k):
    x = torch.linalg.qr(torch.randn(k, i)).Q
    y = torch.linalg.qr(torch.randn(k, j)).Q
    return ((x.T @ y) ** 2).sum().item() / min(i, j)


@right("chance_similarity", "exact fractions to the end")
def _(i, j, k):
    return float(Fraction(i * j, k) / min(i, j))


@right("chance_similarity", "adds up j / k for each of the i rows, i the smaller")
def _(i, j, k):
    i, j = sorted((i, j))
    return math.fsum(j / k for _ in range(i)) / i


@right("chance_similarity", "sums a table of the products' mean squares, 1 / k each")
def _(i, j, k):
    squares = np.full((i, j), 1 / k)
    return float(squares.sum() / min(squares.shape))


# low_rank_part


@wrong("low_rank_part", "transposes Vh, which linalg.svd gives transposed already")
def _(update, r):
    U, S, Vh = torch.linalg.svd(update, full_matrices=False)
    return U[:, :r] @ torch.diag(S[:r]) @ Vh.T[:r]  # a shape error for wide updates


@wrong("low_rank_part", "leaves the singular values out")
def _(update, r):
    U, _, Vh = torch.linalg.svd(update, full_matrices=False)
    return U[:, :r] @ Vh[:r]


@wrong("low_rank_part", "keeps r + 1 singular values")
def _(update, r):
    U, S, Vh = torch.linalg.svd(update, full_matrices=False)
    S = torch.where(torch.arange(len(S)) <= r, S, 0)  # right for full rank only
    return U * S @ Vh


@wrong("low_rank_part", "full U and Vh with a square diagonal: fails where d and k differ")
def _(update, r):
    U, S, Vh = torch.linalg.svd(update)
    S[r:] = 0
    return U @ torch.diag(S) @ Vh


@wrong("low_rank_part", "eigh sorts upwards: keeps the r smallest directions")
def _(update, r):
    directions = torch.linalg.eigh(update.T @ update).eigenvectors[:, :r]
    return update @ directions @ directions.T


@wrong("low_rank_part", "turns a wide update on its side and does not turn the result back")
def _(update, r):
    if update.shape[0] < update.shape[1]:
        update = update.T
    U, S, Vh = torch.linalg.svd(update, full_matrices=False)
    return (U[:, :r] * S[:r]) @ Vh[:r]


@wrong("low_rank_part", "eigenvectors of a square update: right for symmetric ones only")
def _(update, r):
    if update.shape[0] == update.shape[1]:
        values, vectors = torch.linalg.eigh(update)
        kept = values.abs().argsort(descending=True)[:r]
        return vectors[:, kept] * values[kept] @ vectors[:, kept].T
    U, S, Vh = torch.linalg.svd(update, full_matrices=False)
    return U[:, :r] * S[:r] @ Vh[:r]


@wrong("low_rank_part", "keeps the r largest rows of the update instead of singular directions")
def _(update, r):
    kept = update.norm(dim=1).topk(min(r, len(update))).indices
    out = torch.zeros_like(update)
    out[kept] = update[kept]
    return out


@right("low_rank_part", "projects on the leading eigenvectors of the Gram matrix, in float64")
def _(update, r):
    vectors = torch.linalg.eigh(update.double().T @ update.double()).eigenvectors
    kept = vectors[:, -r:]
    return (update.double() @ kept @ kept.T).to(update.dtype)


@right("low_rank_part", "adds up r outer products of numpy's svd")
def _(update, r):
    U, S, Vh = np.linalg.svd(update.numpy())
    parts = (S[i] * np.outer(U[:, i], Vh[i]) for i in range(min(r, len(S))))
    return torch.from_numpy(np.sum(list(parts), axis=0)).to(update.dtype)


@right("low_rank_part", "subtracts the trailing part from the update")
def _(update, r):
    U, S, V = torch.svd(update.double())
    return (update - torch.einsum("di,i,ki->dk", U[:, r:], S[r:], V[:, r:])).to(update.dtype)


# adapter_update


@wrong("adapter_update", "KeyError for an old config without use_rslora")
def _(A, B, config):
    r = config["r"]
    return config["lora_alpha"] / (math.sqrt(r) if config["use_rslora"] else r) * B @ A


@wrong("adapter_update", "takes the square root wherever the key is there, false too")
def _(A, B, config):
    r = config["r"] ** 0.5 if "use_rslora" in config else config["r"]
    return config["lora_alpha"] / r * B @ A


@wrong("adapter_update", "whole square root, isqrt: right for ranks 1, 4, 16 only")
def _(A, B, config):
    r = math.isqrt(config["r"]) if config.get("use_rslora", False) else config["r"]
    return config["lora_alpha"] / r * B @ A


@wrong("adapter_update", "takes use_rslora as true where it is missing")
def _(A, B, config):
    r = config["r"]
    return B @ A * config["lora_alpha"] / (math.sqrt(r) if config.get("use_rslora", True) else r)


@wrong("adapter_update", "integer division of lora_alpha by r")
def _(A, B, config):
    if config.get("use_rslora"):
        return config["lora_alpha"] / config["r"] ** 0.5 * B @ A
    return config["lora_alpha"] // config["r"] * B @ A


@wrong("adapter_update", "compares with the string 'true', so use_rslora is never seen")
def _(A, B, config):
    r = config["r"]
    return config["lora_alpha"] / (math.sqrt(r) if config.get("use_rslora") == "true" else r) * B @ A


@wrong("adapter_update", "pops use_rslora: the caller's config is changed, a second call wrong")
def _(A, B, config):
    r = config["r"]
    return config["lora_alpha"] / (math.sqrt(r) if config.pop("use_rslora", False) else r) * B @ A


@wrong("adapter_update", "with rslora divides by r and by its root too")
def _(A, B, config):
    scale = config["lora_alpha"] / config["r"]
    if config.get("use_rslora"):
        scale /= math.sqrt(config["r"])
    return scale * B @ A


@right("adapter_update", "the exponent of r from the flag")
def _(A, B, config):
    exponent = 1 - 0.5 * bool(config.get("use_rslora"))
    return B @ A * (config["lora_alpha"] * config["r"] ** -exponent)


@right("adapter_update", "structural pattern matching, float64 inside")
def _(A, B, config):
    match config:
        case {"use_rslora": True, "r": r, "lora_alpha": alpha}:
            scale = alpha / math.sqrt(r)
        case {"r": r, "lora_alpha": alpha}:
            scale = alpha / r
    return (scale * B.double() @ A.double()).to(A.dtype)


@right("adapter_update", "rslora as root r times the plain scale, put into A")
def _(A, B, config):
    merged = {"use_rslora": False, **config}
    scale = merged["lora_alpha"] / merged["r"]
    if merged["use_rslora"]:
        scale *= merged["r"] ** 0.5
    return torch.mm(B, A.mul(scale))


# add_adapters


@wrong("add_adapters", "puts the weights into A instead of B")
def _(B1, A1, B2, A2, w1, w2):
    return torch.cat([B1, B2], dim=1), torch.cat([w1 * A1, w2 * A2])


@wrong("add_adapters", "adapter 2 comes first")
def _(B1, A1, B2, A2, w1, w2):
    return torch.cat([w2 * B2, w1 * B1], dim=1), torch.cat([A2, A1])


@wrong("add_adapters", "splits each weight by its root between B and A")
def _(B1, A1, B2, A2, w1, w2):
    a, b = abs(w1) ** 0.5, abs(w2) ** 0.5
    s, t = math.copysign(a, w1), math.copysign(b, w2)
    return torch.cat([s * B1, t * B2], dim=1), torch.cat([a * A1, b * A2])


@wrong("add_adapters", "divides the weights by their sum, a mean instead of a sum")
def _(B1, A1, B2, A2, w1, w2):
    total = w1 + w2
    return torch.cat([w1 / total * B1, w2 / total * B2], dim=1), torch.cat([A1, A2])  # right for a sum of 1


@wrong("add_adapters", "weights B1 and B2 in place: the adapters are changed")
def _(B1, A1, B2, A2, w1, w2):
    return torch.cat([B1.mul_(w1), B2.mul_(w2)], dim=1), torch.cat([A1, A2])


@wrong("add_adapters", "cuts the sum back to the larger of the two ranks by an SVD")
def _(B1, A1, B2, A2, w1, w2):
    r = max(len(A1), len(A2))
    U, S, Vh = torch.linalg.svd(w1 * B1 @ A1 + w2 * B2 @ A2, full_matrices=False)
    return U[:, :r] * S[:r], Vh[:r]


@wrong("add_adapters", "interleaves the columns by stacking, which fails for unequal ranks")
def _(B1, A1, B2, A2, w1, w2):
    B = torch.stack([w1 * B1, w2 * B2], dim=2).flatten(1)
    return B, torch.stack([A1, A2], dim=1).flatten(0, 1)


@wrong("add_adapters", "gives w1 to both adapters")
def _(B1, A1, B2, A2, w1, w2):
    return w1 * torch.hstack([B1, B2]), torch.vstack([A1, A2])


@right("add_adapters", "fills empty matrices by slices")
def _(B1, A1, B2, A2, w1, w2):
    r1, r2 = A1.shape[0], A2.shape[0]
    B, A = B1.new_empty(B1.shape[0], r1 + r2), A1.new_empty(r1 + r2, A1.shape[1])
    B[:, :r1], B[:, r1:] = w1 * B1, w2 * B2
    A[:r1], A[r1:] = A1, A2
    return B, A


@right("add_adapters", "stacks first, then scales the columns of B by a vector")
def _(B1, A1, B2, A2, w1, w2):
    weights = torch.tensor([w1] * B1.shape[1] + [w2] * B2.shape[1], dtype=B1.dtype)
    return torch.hstack((B1, B2)) * weights, torch.vstack((A1, A2))


@right("add_adapters", "lists of columns and rows, stacked at the end")
def _(B1, A1, B2, A2, w1, w2):
    columns = [w1 * column for column in B1.T] + [w2 * column for column in B2.T]
    return torch.stack(columns, dim=1), torch.stack([*A1, *A2])
