"""Answers to lesson 08's exercises that nobody registered, written from the prompts alone."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from corpus import right, wrong

# bottleneck


@wrong("bottleneck", "a second GELU on the way out, before the input is added")
def _(x, down, b, up, c):
    return x + F.gelu(F.linear(F.gelu(F.linear(x, down, b)), up, c))


@wrong("bottleneck", "ReLU instead of GELU")
def _(x, down, b, up, c):
    return x + F.linear(F.relu(F.linear(x, down, b)), up, c)


@wrong("bottleneck", "adds the bias b after the GELU")
def _(x, down, b, up, c):
    return x + (F.gelu(x @ down.T) + b) @ up.T + c  # right for b = 0


@wrong("bottleneck", "forgets the bias c")
def _(x, down, b, up, c):
    return x + F.gelu(x @ down.T + b) @ up.T  # right for c = 0


@wrong("bottleneck", "adds in place: the caller's x is changed")
def _(x, down, b, up, c):
    x += F.gelu(x @ down.T + b) @ up.T + c
    return x


@wrong("bottleneck", "reshapes up and down to fit where they must be transposed")
def _(x, down, b, up, c):
    hidden = F.gelu(x @ down.reshape(down.shape[1], down.shape[0]) + b)
    return x + hidden @ up.reshape(up.shape[1], up.shape[0]) + c  # right for m = 1


@wrong("bottleneck", "GELU as x times sigmoid(1.702 x), an approximation")
def _(x, down, b, up, c):
    hidden = x @ down.T + b
    return x + (hidden * torch.sigmoid(1.702 * hidden)) @ up.T + c


@wrong("bottleneck", "GELU on the input, none in the bottleneck")
def _(x, down, b, up, c):
    return x + (F.gelu(x) @ down.T + b) @ up.T + c


@right("bottleneck", "row by row, matrix times vector, GELU by erf")
def _(x, down, b, up, c):
    rows = []
    for row in x:
        hidden = down @ row + b
        rows.append(row + up @ (hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2) + c)
    return torch.stack(rows)


@right("bottleneck", "einsum in float64")
def _(x, down, b, up, c):
    x64, down64, b64, up64, c64 = (t.double() for t in (x, down, b, up, c))
    hidden = F.gelu(torch.einsum("nd,md->nm", x64, down64) + b64)
    return (x64 + torch.einsum("nm,dm->nd", hidden, up64) + c64).to(x.dtype)


@right("bottleneck", "columns instead of rows, addmm")
def _(x, down, b, up, c):
    hidden = F.gelu(torch.addmm(b[:, None], down, x.T))
    return torch.addmm(x.T + c.unsqueeze(1), up, hidden).T


# merge_branch


@wrong("merge_branch", "tests by doubling alone")
def _(branch, k):
    x = torch.randn(80, k)
    if torch.allclose(branch(2 * x), 2 * branch(x), atol=1e-4):
        return branch(torch.eye(k)).T
    return None


@wrong("merge_branch", "forgets to transpose what the unit vectors give")
def _(branch, k):
    M = branch(torch.eye(k))
    x = torch.randn(80, k)
    return M if torch.allclose(branch(x), x @ M, atol=1e-4) else None


@wrong("merge_branch", "asks only whether zero goes to zero")
def _(branch, k):
    if branch(torch.zeros(1, k)).abs().max() > 1e-6:
        return None
    return branch(torch.eye(k)).T


@wrong("merge_branch", "draws its test inputs from 0 to 1")
def _(branch, k):
    M = branch(torch.eye(k)).T
    x = torch.rand(100, k)
    return M if (branch(x) - x @ M.T).abs().max() < 1e-4 else None


@wrong("merge_branch", "takes half of f(x) - f(-x) for the matrix, whether the branch is one or not")
def _(branch, k):
    eye = torch.eye(k)
    return ((branch(eye) - branch(-eye)) / 2).T


@wrong("merge_branch", "takes the bias off, and merges the rest")
def _(branch, k):
    b = branch(torch.zeros(1, k))
    M = (branch(torch.eye(k)) - b).T
    x = torch.randn(90, k)
    return M if torch.allclose(branch(x), x @ M.T + b, atol=1e-4) else None


@wrong("merge_branch", "looks inside and multiplies the first and last weight, whatever stands between")
def _(branch, k):
    weights = list(branch.parameters())
    return weights[-1] @ weights[0] if len(weights) == 2 else None


@right("merge_branch", "reads the columns one by one, and tests additivity and doubling")
def _(branch, k):
    columns = [branch(torch.eye(k)[i:i + 1])[0] for i in range(k)]
    a, b = torch.randn(200, k), torch.randn(200, k)
    adds = torch.allclose(branch(a + b), branch(a) + branch(b), atol=1e-4)
    doubles = torch.allclose(branch(-3 * a), -3 * branch(a), atol=1e-4)
    return torch.stack(columns, dim=1) if adds and doubles else None


@right("merge_branch", "least squares in float32, kept if it fits other inputs")
def _(branch, k):
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(40, k, generator=generator), torch.randn(40, k, generator=generator)
    M = torch.linalg.lstsq(x, branch(x)).solution.T
    return M.contiguous() if (branch(y) - y @ M.T).abs().max() < 1e-3 else None


# text_loss


@wrong("text_loss", "no shift: position i is scored on token i")
def _(logits, ids):
    n = ids.shape[1]
    return F.cross_entropy(logits[:, -n:].transpose(1, 2), ids)


@wrong("text_loss", "takes the last n - 1 positions, one too late")
def _(logits, ids):
    n = ids.shape[1]
    return F.cross_entropy(logits[:, -(n - 1):].transpose(1, 2), ids[:, 1:])


@wrong("text_loss", "sixteen virtual tokens written into the code")
def _(logits, ids):
    text = logits[:, 16:-1]
    return F.cross_entropy(text.transpose(1, 2), ids[:, 1:])


@wrong("text_loss", "divides the sum by n tokens, not the n - 1 that are predicted")
def _(logits, ids):
    virtual = logits.shape[1] - ids.shape[1]
    total = F.cross_entropy(logits[:, virtual:-1].transpose(1, 2), ids[:, 1:], reduction="sum")
    return total / ids.numel()


@wrong("text_loss", "also scores the first token, predicted from the last virtual one")
def _(logits, ids):
    n = ids.shape[1]
    return F.cross_entropy(logits[:, -n - 1:-1].transpose(1, 2), ids)  # a shape error without virtual tokens


@wrong("text_loss", "scores the first row only")
def _(logits, ids):
    return F.cross_entropy(logits[0, -ids.shape[1]:-1], ids[0, 1:])  # right for a batch of one


@wrong("text_loss", "ignores token 0 as if it were padding")
def _(logits, ids):
    virtual = logits.shape[1] - ids.shape[1]
    return F.cross_entropy(logits[:, virtual:-1].transpose(1, 2), ids[:, 1:], ignore_index=0)


@wrong("text_loss", "softmax before cross_entropy, which takes one itself")
def _(logits, ids):
    virtual = logits.shape[1] - ids.shape[1]
    probabilities = logits[:, virtual:-1].softmax(dim=-1)
    return F.cross_entropy(probabilities.transpose(1, 2), ids[:, 1:])


@right("text_loss", "log-softmax and gather, mean with a minus")
def _(logits, ids):
    text = logits[:, logits.size(1) - ids.size(1):]
    logp = text.log_softmax(dim=-1)[:, :-1]
    return -logp.gather(2, ids[:, 1:, None]).mean()


@right("text_loss", "labels of -100 in front for the virtual tokens and the first one")
def _(logits, ids):
    virtual = logits.shape[1] - ids.shape[1]
    labels = F.pad(ids[:, 1:], (virtual, 1), value=-100)
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


@right("text_loss", "a loop over rows and positions with logsumexp in float64")
def _(logits, ids):
    (rows, n), start = ids.shape, logits.shape[1] - ids.shape[1]
    losses = []
    for row in range(rows):
        for i in range(n - 1):
            scores = logits[row, start + i].double()
            losses.append(scores.logsumexp(0) - scores[ids[row, i + 1]])
    return torch.stack(losses).mean().to(logits.dtype)


# dora_weight


@wrong("dora_weight", "takes the lengths of the columns")
def _(W, dW, m):
    V = W + dW
    return m[:, None] * V / V.norm(dim=0, keepdim=True)


@wrong("dora_weight", "measures length by the sum of absolute values")
def _(W, dW, m):
    V = W + dW
    return m[:, None] * V / V.abs().sum(dim=1, keepdim=True)


@wrong("dora_weight", "gives W its new length first, then adds dW")
def _(W, dW, m):
    return m[:, None] * W / W.norm(dim=1, keepdim=True) + dW  # right for dW = 0


@wrong("dora_weight", "lengths of W and dW put together as if they were perpendicular")
def _(W, dW, m):
    length = torch.sqrt(W.square().sum(1) + dW.square().sum(1))
    return (m / length)[:, None] * (W + dW)


@wrong("dora_weight", "m along the columns: a shape error unless W is square")
def _(W, dW, m):
    V = W + dW
    return m * V / V.norm(dim=1, keepdim=True)


@wrong("dora_weight", "divides by at least 1: shorter rows are not brought to m")
def _(W, dW, m):
    V = W + dW
    return m[:, None] * V / V.norm(dim=1, keepdim=True).clamp(min=1)


@wrong("dora_weight", "takes m as a factor on the old length of W")
def _(W, dW, m):
    V = W + dW
    return m[:, None] * W.norm(dim=1, keepdim=True) * V / V.norm(dim=1, keepdim=True)


@wrong("dora_weight", "adds 1e-3 to the length: rows come out short, small ones much")
def _(W, dW, m):
    V = W + dW
    return m[:, None] * V / (V.norm(dim=1, keepdim=True) + 1e-3)


@right("dora_weight", "F.normalize, then scaled")
def _(W, dW, m):
    return F.normalize(W + dW, dim=1, eps=1e-30) * m.unsqueeze(1)


@right("dora_weight", "a diagonal matrix of factors, in float64 by einsum")
def _(W, dW, m):
    V = W.double() + dW.double()
    lengths = torch.einsum("dk,dk->d", V, V).sqrt()
    return (torch.diag(m.double() / lengths) @ V).to(W.dtype)


@right("dora_weight", "row by row with math.hypot")
def _(W, dW, m):
    rows = [row * (length / math.hypot(*row.tolist())) for row, length in zip(W + dW, m.tolist(), strict=True)]
    return torch.stack(rows)


# answer_each


@wrong("answer_each", "a row with the name '' gets zeros, not the base's answer")
def _(x, W, adapters, names):
    h = torch.zeros(len(x), len(W))
    for i, name in enumerate(names):
        if name:
            A, B, scaling = adapters[name]
            h[i] = W @ x[i] + scaling * B @ (A @ x[i])
    return h


@wrong("answer_each", "finds each adapter's first row only: repeats get the base alone")
def _(x, W, adapters, names):
    h = x @ W.T
    for name in set(names) - {""}:
        A, B, scaling = adapters[name]
        i = names.index(name)
        h[i] += scaling * B @ (A @ x[i])
    return h


@wrong("answer_each", "adds the branch to all rows of a name once for each of them")
def _(x, W, adapters, names):
    h = x @ W.T
    for name in names:
        if name:
            A, B, scaling = adapters[name]
            rows = torch.tensor([other == name for other in names])
            h[rows] += scaling * x[rows] @ A.T @ B.T
    return h


@wrong("answer_each", "merges adapters into W in place: W is changed, later rows have earlier adapters too")
def _(x, W, adapters, names):
    rows = []
    for row, name in zip(x, names, strict=True):
        if name:
            A, B, scaling = adapters[name]
            W += scaling * B @ A
        rows.append(W @ row)
    return torch.stack(rows)


@wrong("answer_each", "returns the rows grouped by name, not in the order of x")
def _(x, W, adapters, names):
    order = sorted(range(len(names)), key=lambda i: names[i])
    h = x[order] @ W.T
    for place, i in enumerate(order):
        if names[i]:
            A, B, scaling = adapters[names[i]]
            h[place] += scaling * B @ (A @ x[i])
    return h


@wrong("answer_each", "stacks all adapters into one tensor: fails where their ranks differ")
def _(x, W, adapters, names):
    h = x @ W.T
    rows = [i for i, name in enumerate(names) if name]
    if rows:
        A, B = (torch.stack([adapters[names[i]][part] for i in rows]) for part in (0, 1))
        scaling = torch.tensor([adapters[names[i]][2] for i in rows])
        h[rows] += scaling[:, None] * (B @ (A @ x[rows, :, None])).squeeze(2)
    return h


@wrong("answer_each", "divides the scaling by r once more")
def _(x, W, adapters, names):
    h = x @ W.T
    for i, name in enumerate(names):
        if name != "":
            A, B, scaling = adapters[name]
            h[i] += scaling / A.shape[0] * B @ (A @ x[i])
    return h


@wrong("answer_each", "stops at the first '': later rows get no branch")
def _(x, W, adapters, names):
    h = x @ W.T
    for i, name in enumerate(names):
        if not name:
            break
        A, B, scaling = adapters[name]
        h[i] += scaling * B @ (A @ x[i])
    return h


@right("answer_each", "every adapter over all rows, times a mask of zeros and ones")
def _(x, W, adapters, names):
    h = F.linear(x, W)
    for name, (A, B, scaling) in adapters.items():
        mask = torch.tensor([float(other == name) for other in names])
        h = h + mask[:, None] * scaling * (x @ A.T @ B.T)
    return h


@right("answer_each", "all adapters side by side in one A and B, foreign columns zeroed")
def _(x, W, adapters, names):
    h, owners = x @ W.T, [name for name, (A, _, _) in adapters.items() for _ in A]
    if owners:
        down = torch.cat([A for A, _, _ in adapters.values()])
        up = torch.cat([scaling * B for _, B, scaling in adapters.values()], dim=1)
        mine = torch.tensor(np.array(names)[:, None] == np.array(owners)[None, :])
        h = h + torch.where(mine, x @ down.T, 0) @ up.T
    return h


@right("answer_each", "grouped by name with index_add")
def _(x, W, adapters, names):
    groups, h = {}, x @ W.T
    for i, name in enumerate(names):
        groups.setdefault(name, []).append(i)
    groups.pop("", None)
    for name, rows in groups.items():
        A, B, scaling = adapters[name]
        h = h.index_add(0, torch.tensor(rows), (x[rows] @ A.T) @ B.T, alpha=scaling)
    return h
