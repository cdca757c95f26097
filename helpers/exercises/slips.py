"""Whether an answer is that of the solution with one slip in it: another sign, a lost term, a result rounded early."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from helpers.exercises.places import Trial
from helpers.exercises.probes import NOTHING, safely

SIGNS = {"+": ast.Add, "-": ast.Sub, "*": ast.Mult, "/": ast.Div, "//": ast.FloorDiv, "%": ast.Mod, "**": ast.Pow,
         "^": ast.BitXor, "@": ast.MatMult, "<": ast.Lt, "<=": ast.LtE, ">": ast.Gt, ">=": ast.GtE, "&": ast.BitAnd,
         "|": ast.BitOr, "and": ast.And, "or": ast.Or}
SLIPS = {"+": "-", "-": "+", "*": "/ +", "/": "// *", "//": "% /", "%": "//", "**": "^ *", "@": "*", "<": "<=",
         "<=": "<", ">": ">=", ">=": ">", "&": "% |", "and": "or", "or": "and"}
MEANS = {"//": " (which rounds down)", "%": " (which gives the remainder)", "^": " (no power)"}
PAIRS = ("min max", "ceil floor", "amax amin", "round floor", "argmax argmin", "sum mean", "any all")
NAMES = {a: b for pair in PAIRS for a, b in itertools.permutations(pair.split())}
Edit = tuple[str, ast.AST, str, Any]  # words, and the field of a node that gets another value


def slip(solution: Callable[..., Any], here: Trial, others: Sequence[Trial],
         agree: Callable[[Any, Any, float], bool]) -> str | None:
    """The slip that, made in the solution, gives what came, here and on all other inputs: "`//` in place of `/`"."""
    def same(made: Callable[..., Any], trial: Trial) -> bool:
        value = safely(made, trial.args)
        return value is not NOTHING and agree(trial.got, value, 1e-6)

    made = itertools.chain(_edited(solution), _rounded(solution, here.args)) if len(others) > 1 else ()
    return next((said for said, function in made if all(same(function, trial) for trial in (here, *others))), None)


def _edited(solution: Callable[..., Any]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The solution with one place of its source changed."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(solution)))
    for said, node, field, new in [edit for place in ast.walk(tree) for edit in _edits(place)]:
        old = getattr(node, field)
        setattr(node, field, new)
        space = dict(vars(inspect.getmodule(solution)))
        exec(compile(ast.fix_missing_locations(tree), "<slip>", "exec"), space)
        setattr(node, field, old)
        yield said, space[solution.__name__]


def _edits(node: ast.AST) -> Iterator[Edit]:
    """What may slip at this place."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.Compare):
        field = "ops" if isinstance(node, ast.Compare) else "op"
        old = _sign(node.ops[0] if field == "ops" else node.op)
        for new in SLIPS.get(old, "").split():
            made = SIGNS[new]()
            yield f"`{new}`{MEANS.get(new, '')} in place of `{old}`", node, field, [made] if field == "ops" else made
    for field, child in ast.iter_fields(node):
        if isinstance(child, ast.BinOp):
            sign, factors = _sign(child.op), _flat(child, ast.Mult)
            what = f"factor behind a `{sign}` is left out" if sign not in ("+", "-") else "term of a sum is left out"
            if sign in ("+", "-", "*", "/", "//"):
                yield f"a {what}", node, field, child.left
            if sign in ("+", "*", "@"):
                yield f"a {what.replace('behind', 'before')}", node, field, child.right
            terms = next((terms for terms in (_flat(factor, ast.Add) for factor in factors) if len(terms) > 1), [])
            others = [factor for factor in factors if _flat(factor, ast.Add) != terms]
            for factor, count in itertools.product(others, range(1, len(terms))):
                rest = [other for other in others if other is not factor]
                for kept in itertools.combinations(terms, count):
                    yield ("without its brackets a sum has a factor before some of its terms only", node, field,
                           _joined(ast.Add(), [_joined(ast.Mult(), [*rest, *[factor] * (term in kept), term])
                                               for term in terms]))
    if isinstance(node, ast.Constant) and type(node.value) is int and node.value < 1000:
        for new in (node.value + 1, node.value - 1, *((node.value // 2, 2 * node.value) if node.value > 7 else ())):
            yield f"{new} in place of {node.value}", node, "value", new
    if isinstance(node, ast.Attribute | ast.Name):
        field = "attr" if isinstance(node, ast.Attribute) else "id"
        old = getattr(node, field)
        if old in NAMES:
            yield f"`{NAMES[old]}` in place of `{old}`", node, field, NAMES[old]
        if old in ("abs", "round", "sqrt") and field == "attr":
            yield f"`{old}` is left out", node, field, "clone"


def _sign(node: ast.AST) -> str | None:
    return next((sign for sign, kind in SIGNS.items() if isinstance(node, kind)), None)


def _flat(node: ast.expr, sign: type) -> list[ast.expr]:
    """The factors of a product, or the terms of a sum, in order."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, sign):
        return [*_flat(node.left, sign), *_flat(node.right, sign)]
    return [node]


def _joined(sign: ast.operator, parts: Sequence[ast.expr]) -> ast.expr:
    return functools.reduce(lambda a, b: ast.BinOp(a, sign, b), parts)


def _rounded(solution: Callable[..., Any], args: tuple) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The solution with results on the way rounded to sixteen bits: each by itself, then all of them."""
    names: list[str] = []  # of the operations of the latest call

    def made(dtype: torch.dtype | None, step: int | None) -> Callable[..., Any]:
        class Rounding(TorchFunctionMode):
            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                value = func(*args, **(kwargs or {}))
                if isinstance(value, torch.Tensor) and value.dtype in (torch.float32, torch.float64):
                    named = func.__self__ if func.__name__ == "__get__" else func  # x.T asks T's __get__
                    names.append(named.__name__.strip("_"))
                    if dtype and step in (None, len(names)):
                        return value.to(dtype).to(value.dtype)
                return value

        def function(*args: Any) -> Any:
            names.clear()
            with Rounding():
                return solution(*args)
        return function

    safely(made(None, None), args)
    steps = [(f"what `{name}` gives", step) for step, name in enumerate(names[:20], start=1)]
    for dtype, (what, step) in itertools.product((torch.bfloat16, torch.float16), [
            *steps, *[("all that is computed", None)] * bool(steps)]):
        yield f"{what} on the way is rounded to {str(dtype).removeprefix('torch.')}", made(dtype, step)
