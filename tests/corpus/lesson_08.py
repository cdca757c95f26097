"""Answers to lesson 08's exercises that nobody registered, written from the prompts alone."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from corpus import right, wrong

# bottleneck_weights


@wrong("bottleneck_weights", "leaves out both biases")
def _(d, m, layers):
    return layers * 2 * (d * m + m * d)


@wrong("bottleneck_weights", "counts one adapter in every layer instead of two")
def _(d, m, layers):
    return layers * (d * m + m + m * d + d)


@wrong("bottleneck_weights", "gives both linear layers a bias of d")
def _(d, m, layers):
    return layers * 2 * (2 * d * m + 2 * d)


@wrong("bottleneck_weights", "forgets the bias of the layer back up to d")
def _(d, m, layers):
    return layers * 2 * (d * m + m + m * d)


@wrong("bottleneck_weights", "counts the biases of one layer only, not of all layers")
def _(d, m, layers):
    return layers * 4 * d * m + 2 * (m + d)  # right for one layer


@wrong("bottleneck_weights", "adds the two layer norms of every layer, 4 d more")
def _(d, m, layers):
    adapter = (d + 1) * m + (m + 1) * d
    return layers * (2 * adapter + 2 * 2 * d)


@wrong("bottleneck_weights", "missing brackets: only the first term is multiplied by the adapters' number")
def _(d, m, layers):
    return 2 * layers * d * m + m + m * d + d


@wrong("bottleneck_weights", "takes m as a reduction factor: a bottleneck of d // m")
def _(d, m, layers):
    width = d // m
    return layers * 2 * (2 * d * width + width + d)


@right("bottleneck_weights", "builds one adapter of nn.Linear on the meta device and counts")
def _(d, m, layers):
    adapter = torch.nn.Sequential(torch.nn.Linear(d, m, device="meta"), torch.nn.Linear(m, d, device="meta"))
    return 2 * layers * sum(parameter.numel() for parameter in adapter.parameters())


@right("bottleneck_weights", "adds up in loops over layers, adapters and directions")
def _(d, m, layers):
    total = 0
    for _ in range(layers):
        for _ in range(2):
            for inputs, outputs in ((d, m), (m, d)):
                total += (inputs + 1) * outputs
    return total


@right("bottleneck_weights", "completes a product: (2m + 1)(2d + 1) - 1 for a layer")
def _(d, m, layers):
    return layers * ((2 * m + 1) * (2 * d + 1) - 1)


# bottleneck


@wrong("bottleneck", "a second ReLU on the way out, before the input is added")
def _(x, down, b, up, c):
    return x + F.relu(F.linear(F.relu(F.linear(x, down, b)), up, c))


@wrong("bottleneck", "GELU instead of ReLU")
def _(x, down, b, up, c):
    return x + F.linear(F.gelu(F.linear(x, down, b)), up, c)


@wrong("bottleneck", "adds the bias b after the ReLU")
def _(x, down, b, up, c):
    return x + (F.relu(x @ down.T) + b) @ up.T + c  # right for b = 0


@wrong("bottleneck", "forgets the bias c")
def _(x, down, b, up, c):
    return x + F.relu(x @ down.T + b) @ up.T  # right for c = 0


@wrong("bottleneck", "adds in place: the caller's x is changed")
def _(x, down, b, up, c):
    x += torch.relu(x @ down.T + b) @ up.T + c
    return x


@wrong("bottleneck", "reshapes up and down to fit where they must be transposed")
def _(x, down, b, up, c):
    hidden = (x @ down.reshape(down.shape[1], down.shape[0]) + b).relu()
    return x + hidden @ up.reshape(up.shape[1], up.shape[0]) + c  # right for m = 1


@wrong("bottleneck", "a ReLU that is cut off at 6")
def _(x, down, b, up, c):
    return x + F.relu6(x @ down.T + b) @ up.T + c  # right for small values


@wrong("bottleneck", "ReLU on the input, none in the bottleneck")
def _(x, down, b, up, c):
    return x + (x.relu() @ down.T + b) @ up.T + c


@right("bottleneck", "row by row, matrix times vector, clamp for ReLU")
def _(x, down, b, up, c):
    rows = [row + up @ (down @ row + b).clamp(min=0) + c for row in x]
    return torch.stack(rows)


@right("bottleneck", "ReLU as half of the value and its magnitude, in float64")
def _(x, down, b, up, c):
    x64, down64, b64, up64, c64 = (t.double() for t in (x, down, b, up, c))
    hidden = torch.einsum("nd,md->nm", x64, down64) + b64
    return (x64 + torch.einsum("nm,dm->nd", (hidden + hidden.abs()) / 2, up64) + c64).to(x.dtype)


@right("bottleneck", "columns instead of rows, addmm, masked by a comparison")
def _(x, down, b, up, c):
    hidden = torch.addmm(b[:, None], down, x.T)
    hidden = hidden * (hidden > 0)
    return torch.addmm(x.T + c.unsqueeze(1), up, hidden).T


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
