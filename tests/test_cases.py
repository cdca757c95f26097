"""The cases of each exercise refuse its solution with one slip in it, wherever in the code the slip stands.

Those below are accepted, each for a reason: they answer as the solution does on every input that the prompt allows.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from helpers.exercises import registry, slips
from helpers.exercises.compare import aliases, copied, equal
from helpers.exercises.engine import Exercise
from helpers.exercises.running import call

EXERCISES = dict(registry.exercises())
SECONDS = 2.0
PAIRS = ((ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn))
OTHER = {**dict(PAIRS), **{b: a for a, b in PAIRS}}
DTYPES = ("float64", "float32", "bfloat16", "int64", "int32", "uint8", "int8")
EITHER_WAY = ("max", "min", "minimum", "transpose")  # of two arguments
LEFT = ("strict", "atol")  # lists of unequal length never come, and how close is close was not asked
SAME = {  # exercise: {the line as it became: why it changes nothing}
    "safe_mean": {"mean = x.mean()": "torch adds up sixteen-bit floats in 32 bits"},
    "through_int4": {"codes = (blocks / torch.where(absmax > 0, absmax, 2) * 7).round()": "zero by any number"},
    "normal_levels": {"return torch.cat([below[1:].flip(-1), above]) / above[-1]": "it has one dimension"},
    "weighted_levels": {"for code, level in enumerate(levels):": "a tensor of one number compares like the number"},
    "low_rank_part": {"U, S, Vh = torch.linalg.svd(update)": "the columns too many are cut off",
                      "U, S, Vh = torch.linalg.svd(update, full_matrices=True)": "the columns too many are cut off"},
    "add_adapters": {"return (torch.cat([w1 * B1, w2 * B2], dim=1), torch.cat([A1, A2]))": "dim=0 is the default"},
    "merge_branch": {
        **{f"x = torch.randn({n}, k)": "any number of probes does" for n in (32, 63, 65, 128)},
        "return matrix if torch.allclose(x @ matrix.T, branch(x), atol=0.0001) else None": "close to each other"},
    "frozen_product": {"x = x.requires_grad_()": "the input's values stay; that it asks for a gradient does no harm"},
    "nf4_linear": {"codes = torch.stack([packed >> 4, packed & 15], dim=1).long()": "laid out in blocks behind it"},
    "page_out": {"missing = max(resident - room, -1)": "-1 byte rounds up to no page"},
    "choose_precision": {"return 'bfloat16' if capability >= (8, -1) else 'float16'": "no minor version is negative"},
    "share_moved": {"after = (before - step).to(torch.bfloat16)": "a difference of bf16 is rounded once, too"},
    "merge_weight": {"return (W + alpha / r * (B @ A)).to(W.dtype)": "16 and 32 bits add up in 32"},
    "sequence_logps": {"return (known * (wanted != -100)).sum(1)": "it has two dimensions",
                       "known = logps.gather(-1, wanted.clamp(min=0)[..., None])[..., -1]": "the only one"},
    "e8m0_scale": {"absmax = blocks.abs().amax(dim=1).double()": "it has two dimensions",
                   **{f"return (2.0 ** exponent.clamp(-127, {n})).float()": "float32 ends at an exponent of 125 here"
                      for n in (126, 128, 254)}},
}


def edits(node: ast.AST) -> Iterator[slips.Edit]:
    """What may slip at this place, besides what a card would name: (words, node, field, its new value)."""
    if isinstance(node, ast.keyword) and node.arg in LEFT:
        return
    yield from slips._edits(node)
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            def put(*new: ast.AST, child: Any = child, value: Any = value) -> Any:
                if not isinstance(value, list):
                    return new[0]
                return [other for old in value for other in (new if old is child else (old,))]

            for said, *new in instead(child, isinstance(value, list)):
                yield said, node, field, put(*new)


def instead(node: Any, listed: bool) -> Iterator[tuple]:
    """What may stand there by mistake: (words, node), or several nodes where it is one of a list."""
    if isinstance(node, ast.BoolOp):
        for n in range(len(node.values)):
            rest = node.values[:n] + node.values[n + 1:]
            yield "a condition left out", rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
    if isinstance(node, ast.UnaryOp):
        yield "a sign left out", node.operand
    if isinstance(node, ast.Compare) and type(node.ops[0]) in OTHER:
        yield "a comparison turned", ast.Compare(node.left, [OTHER[type(node.ops[0])]()], node.comparators)
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | float):
        yield "another constant", ast.Constant(not node.value if node.value in (True, False) else 1.1 * node.value)
    if isinstance(node, ast.Attribute) and node.attr in DTYPES:
        for name in DTYPES:
            if name != node.attr:
                yield "another dtype", ast.Attribute(node.value, name, ast.Load())
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and not (isinstance(node.func.value, ast.Name) and node.args):
            yield "a call left out", node.func.value
        if len(node.args) > 1 and getattr(node.func, "attr", getattr(node.func, "id", "")) not in EITHER_WAY:
            first, second, *rest = node.args
            yield "arguments exchanged", ast.Call(node.func, [second, first, *rest], node.keywords)
        for n, keyword in enumerate(node.keywords):
            if keyword.arg not in LEFT:
                yield "a keyword left out", ast.Call(node.func, node.args, node.keywords[:n] + node.keywords[n + 1:])
    if isinstance(node, ast.IfExp):
        yield from (("always the first", node.body), ("always the second", node.orelse))
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and isinstance(node.slice, ast.Slice):
        yield "a slice left out", node.value
    if isinstance(node, ast.If) and listed:
        yield "always", *node.body
        yield "never", *(node.orelse or [ast.Pass()])
    if isinstance(node, ast.Assign | ast.AugAssign | ast.Expr) and listed:
        yield "a statement left out", ast.Pass()


def slipped(exercise: Exercise) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The solution with one slip each: (the changed line, function)."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(exercise.solution)))
    head = tree.body[0]
    head.returns, head.body = None, head.body[bool(inspect.getdoc(exercise.solution)):]
    for argument in head.args.args:
        argument.annotation = None
    right = ast.unparse(tree).splitlines()
    seen = {tuple(right)}
    for place in list(ast.walk(tree)):
        for _, node, field, new in list(edits(place)):
            old = getattr(node, field)
            setattr(node, field, new)
            lines = tuple(ast.unparse(ast.fix_missing_locations(tree)).splitlines())
            setattr(node, field, old)
            if lines in seen:
                continue
            seen.add(lines)
            space = dict(vars(inspect.getmodule(exercise.solution)))
            exec("\n".join(lines), space)
            yield "\n".join(line.strip() for line in lines if line not in right), space[exercise.name]


def accepted(exercise: Exercise, function: Callable[..., Any]) -> bool:
    """Whether it would count as correct; without a diagnosis, which takes longer."""
    for case in exercise.inputs():
        with case.arguments() as args:
            expected, before = exercise.solution(*copied(args)), copied(args)
            outcome = call(function, args, SECONDS)
            if outcome.error is not None or not exercise.agree(outcome.value, expected) or not equal(args, before):
                return False
            if any(aliases(outcome.value, arg) for arg in args):
                return False
    return True


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_no_slip_is_accepted(exercise):
    passed = {line for line, function in slipped(exercise) if accepted(exercise, function)}
    assert passed == set(SAME.get(exercise.name, {}))


def test_slips_are_many():
    assert sum(1 for exercise in EXERCISES.values() for _ in slipped(exercise)) > 1_500
