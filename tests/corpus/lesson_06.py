"""Answers to lesson 06's exercises that nobody registered, written from the prompts alone."""


import torch

from corpus import right, wrong

# lora_forward


@wrong("lora_forward", "divides alpha by k, the width of A, in place of r")
def _(x, W, A, B, alpha):
    return x @ W.T + alpha / A.shape[-1] * (x @ A.T) @ B.T


@wrong("lora_forward", "integer division of alpha by r")
def _(x, W, A, B, alpha):
    return x @ W.T + alpha // len(A) * (x @ A.T) @ B.T


@wrong("lora_forward", "scales the sum, the frozen part too")
def _(x, W, A, B, alpha):
    return alpha / len(A) * (x @ W.T + x @ A.T @ B.T)


@wrong("lora_forward", "rank 8 written into the code")
def _(x, W, A, B, alpha):
    return torch.nn.functional.linear(x, W + alpha / 8 * B @ A)


@wrong("lora_forward", "the branch alone, with no frozen layer")
def _(x, W, A, B, alpha):
    return (x @ A.T) @ B.T * (alpha / A.shape[0])


@wrong("lora_forward", "multiplies A and B in the other order wherever the shapes allow it")
def _(x, W, A, B, alpha):
    product = A @ B if A.shape == B.shape else B @ A
    return x @ (W + alpha / len(A) * product).T


@wrong("lora_forward", "treats x as a column: W @ x.T, and returns that, lying on its side")
def _(x, W, A, B, alpha):
    return W @ x.T + alpha / len(A) * B @ (A @ x.T)


@wrong("lora_forward", "scales twice, once behind A and once behind B")
def _(x, W, A, B, alpha):
    s = alpha / B.shape[1]
    return x @ W.T + s * ((s * x @ A.T) @ B.T)


@right("lora_forward", "one weight W + (α/r)·BA, made in float64")
def _(x, W, A, B, alpha):
    weight = W.double() + alpha / len(A) * B.double() @ A.double()
    return (x.double() @ weight.T).to(x.dtype)


@right("lora_forward", "rows one by one, the branch as a sum of r outer products")
def _(x, W, A, B, alpha):
    rows = []
    for row in x:
        branch = sum((a @ row) * b for a, b in zip(A, B.T, strict=True))
        rows.append(W @ row + branch * alpha / A.shape[0])
    return torch.stack(rows)


@right("lora_forward", "einsum, and the scale on A")
def _(x, W, A, B, alpha):
    return torch.einsum("nk,dk->nd", x, W) + torch.einsum("nk,rk,dr->nd", x, A * (alpha / A.size(0)), B)


# moves_first


@wrong("moves_first", "swapped: says A moves where A is nonzero, B where B is")
def _(A, B):
    return ("A" if A.any() else "") + ("B" if B.any() else "")


@wrong("moves_first", "a matrix counts as zero as soon as a single entry is (all, not any)")
def _(A, B):
    return ("A" if B.all() else "") + ("B" if A.all() else "")


@wrong("moves_first", "tests the sum of the entries, which can cancel to zero")
def _(A, B):
    return ("A" if B.sum() != 0 else "") + ("B" if A.sum() != 0 else "")  # wrong for B = [[1], [-1]]


@wrong("moves_first", "tests max() > 0: a matrix of negative numbers only counts as zero")
def _(A, B):
    return ("A" if B.max() > 0 else "") + ("B" if A.max() > 0 else "")


@wrong("moves_first", "takes values below 1e-3 for zero by allclose's tolerance")
def _(A, B):
    a_is_zero = torch.allclose(A, torch.zeros_like(A), atol=1e-3)
    b_is_zero = torch.allclose(B, torch.zeros_like(B), atol=1e-3)
    return ("" if b_is_zero else "A") + ("" if a_is_zero else "B")


@wrong("moves_first", "both move if the product B @ A is nonzero, else none")
def _(A, B):
    return "AB" if (B @ A).any() else ""


@wrong("moves_first", "always B if B is zero, forgets that A can be zero too")
def _(A, B):
    if not B.any():
        return "B"  # wrong where both are zero
    return "AB" if A.any() else "A"


@wrong("moves_first", "looks at the first row of each matrix only")
def _(A, B):
    return ("A" if B[0].any() else "") + ("B" if A[0].any() else "")


@right("moves_first", "asks autograd with a random input and gradient")
def _(A, B):
    a, b = A.double().clone().requires_grad_(), B.double().clone().requires_grad_()
    x, g = torch.randn(5, A.shape[1]).double(), torch.randn(5, B.shape[0]).double()
    (x @ a.T @ b.T * g).sum().backward()
    return "".join(name for name, t in (("A", a), ("B", b)) if t.grad.abs().max() > 0)


@right("moves_first", "multiplies strings by truth values")
def _(A, B):
    return "A" * bool(B.count_nonzero()) + "B" * bool(A.count_nonzero())


@right("moves_first", "a table indexed by the two answers, over Python lists")
def _(A, B):
    a, b = (any(value != 0 for row in t.tolist() for value in row) for t in (A, B))
    return {(False, False): "", (True, False): "B", (False, True): "A", (True, True): "AB"}[a, b]


# forward_with_dropout


@wrong("forward_with_dropout", "drops after A, among the r values, not on the input")
def _(x, W, A, B, scaling, drop):
    return x @ W.T + scaling * drop(x @ A.T) @ B.T


@wrong("forward_with_dropout", "drops the branch's output instead of its input")
def _(x, W, A, B, scaling, drop):
    return x @ W.T + drop(scaling * x @ A.T @ B.T)


@wrong("forward_with_dropout", "gives the dropped input to the frozen weight too")
def _(x, W, A, B, scaling, drop):
    x = drop(x)
    return x @ W.T + scaling * x @ A.T @ B.T


@wrong("forward_with_dropout", "drops entries of the matrix A instead of the input")
def _(x, W, A, B, scaling, drop):
    return x @ W.T + scaling * x @ drop(A).T @ B.T


@wrong("forward_with_dropout", "scales the frozen product as well")
def _(x, W, A, B, scaling, drop):
    return scaling * (x @ W.T + drop(x) @ A.T @ B.T)


@wrong("forward_with_dropout", "keeps drop's zeros but not its scaling up of the rest")
def _(x, W, A, B, scaling, drop):
    kept = drop(torch.ones_like(x)) != 0
    return x @ W.T + scaling * (x * kept) @ A.T @ B.T


@wrong("forward_with_dropout", "uses a dropout of its own, ignores the argument drop")
def _(x, W, A, B, scaling, drop):
    return x @ W.T + scaling * torch.nn.functional.dropout(x, 0.1) @ A.T @ B.T


@wrong("forward_with_dropout", "drops twice: on the input and again after A")
def _(x, W, A, B, scaling, drop):
    return x @ W.T + scaling * drop(drop(x) @ A.T) @ B.T


@right("forward_with_dropout", "multiplies B and A to one matrix first")
def _(x, W, A, B, scaling, drop):
    update = scaling * B @ A
    return torch.nn.functional.linear(drop(x), update) + torch.nn.functional.linear(x, W)


@right("forward_with_dropout", "one einsum for the branch, addmm for the sum")
def _(x, W, A, B, scaling, drop):
    branch = torch.einsum("nk,rk,dr->nd", drop(x), A, B)
    return torch.addmm(branch, x, W.T, beta=scaling)


@right("forward_with_dropout", "one product of input and dropped input side by side with stacked weights")
def _(x, W, A, B, scaling, drop):
    both = torch.cat([x, drop(x)], dim=1)
    return both @ torch.cat([W, scaling * B @ A], dim=1).T


# merged_weight


@wrong("merged_weight", "returns W itself, not a new tensor, where it is merged")
def _(W, delta, merged):
    return W if merged else (W + delta).to(W.dtype)


@wrong("merged_weight", "rounds delta to W's dtype before the sum")
def _(W, delta, merged):
    return W.clone() if merged else W + delta.to(W.dtype)  # wrong in 16 bits only


@wrong("merged_weight", "adds in place: W is changed and returned")
def _(W, delta, merged):
    if not merged:
        W += delta
        return W
    return W.clone()


@wrong("merged_weight", "the flag the wrong way round: adds where it is merged")
def _(W, delta, merged):
    return (W + delta).to(W.dtype) if merged else W.clone()


@wrong("merged_weight", "returns the float32 sum, not W's dtype")
def _(W, delta, merged):
    return W.float() + (0 if merged else delta)


@wrong("merged_weight", "takes the update out again where it is merged")
def _(W, delta, merged):
    return (W.float() - delta if merged else W.float() + delta).to(W.dtype)


@wrong("merged_weight", "rounds to float16 always, whatever W's dtype is")
def _(W, delta, merged):
    return (W.float() + delta * (not merged)).half()


@wrong("merged_weight", "if merged, subtracts and adds again, with a rounding to 16 bits between")
def _(W, delta, merged):
    if merged:
        W = (W - delta).to(W.dtype)
    return (W + delta).to(W.dtype)


@right("merged_weight", "torch.where on the flag")
def _(W, delta, merged):
    return torch.where(torch.tensor(merged), W.float(), W.float() + delta).to(W.dtype)


@right("merged_weight", "multiplies delta by the truth value")
def _(W, delta, merged):
    return (W + (1 - int(merged)) * delta).to(W.dtype)


@right("merged_weight", "an empty tensor of W's dtype, filled by copy_")
def _(W, delta, merged):
    out = torch.empty_like(W)
    out.copy_(W if merged else torch.add(delta, W))
    return out


# branch_gradients


@wrong("branch_gradients", "forgets the scaling in the gradient of B")
def _(x, g, A, B, scaling):
    return scaling * (g @ B).T @ x, g.T @ (x @ A.T)


@wrong("branch_gradients", "returns the pair in the other order, B first")
def _(x, g, A, B, scaling):
    return scaling * g.T @ (x @ A.T), scaling * (g @ B).T @ x


@wrong("branch_gradients", "takes the mean over the rows instead of the sum")
def _(x, g, A, B, scaling):
    n = len(x)
    return scaling * (g @ B).T @ x / n, scaling * g.T @ (x @ A.T) / n


@wrong("branch_gradients", "reshapes A to (k, r) where it must be transposed")
def _(x, g, A, B, scaling):
    k, r = A.shape[1], A.shape[0]
    return scaling * (g @ B).T @ x, scaling * g.T @ (x @ A.reshape(k, r))  # right for r = 1


@wrong("branch_gradients", "scales g in place: the caller's g is changed")
def _(x, g, A, B, scaling):
    g *= scaling
    return (g @ B).T @ x, g.T @ (x @ A.T)


@wrong("branch_gradients", "sums the rows of x and g first, then multiplies the sums")
def _(x, g, A, B, scaling):
    x, g = x.sum(0), g.sum(0)
    return scaling * torch.outer(g @ B, x), scaling * torch.outer(g, A @ x)  # right for n = 1


@wrong("branch_gradients", "squeezes the results: shapes are wrong for r = 1")
def _(x, g, A, B, scaling):
    return (scaling * (g @ B).T @ x).squeeze(), (scaling * g.T @ (x @ A.T)).squeeze()


@wrong("branch_gradients", "scales g already and applies the scaling to A's gradient once more")
def _(x, g, A, B, scaling):
    g = scaling * g
    return scaling * (g @ B).T @ x, g.T @ (x @ A.T)


@right("branch_gradients", "einsum over rows, in another order of the factors")
def _(x, g, A, B, scaling):
    return (torch.einsum("nk,nd,dr->rk", x, g, B) * scaling,
            torch.einsum("rk,nk,nd->dr", A, x, g) * scaling)


@right("branch_gradients", "a loop over the rows that adds outer products")
def _(x, g, A, B, scaling):
    grad_a, grad_b = torch.zeros_like(A), torch.zeros_like(B)
    for row, above in zip(x, g, strict=True):
        grad_a += torch.outer(B.T @ above, row) * scaling
        grad_b += torch.outer(above, A @ row) * scaling
    return grad_a, grad_b


@right("branch_gradients", "numpy in float64, back in float32")
def _(x, g, A, B, scaling):
    x64, g64, a64, b64 = (t.detach().double().numpy() for t in (x, g, A, B))
    grad_a = scaling * b64.T @ g64.T @ x64
    grad_b = ((a64 @ x64.T) @ g64 * scaling).T
    return torch.from_numpy(grad_a).to(A.dtype), torch.from_numpy(grad_b.copy()).to(B.dtype)
