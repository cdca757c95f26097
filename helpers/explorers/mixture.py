"""The explorer of lesson 12: what goes into the mixture, and the four scores that come out.

Nothing is computed in between: each mixture was trained, and what is shown is in the record `tuning.json`.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

import ipywidgets as widgets

from helpers import experiments, plots
from helpers.explorers.checks import one_of
from helpers.explorers.frame import Explorer, Row, legend, line, svg, tag, words

PARTS = {"instruction": "Instruction rows", "prose": "Prose", "preference": "Preference pairs"}
SCORES = {"facts": "newcomers' facts", "form": "form of answers", "preference": "one sentence",
          "perplexity": "old prose: perplexity"}
NOTHING, BASE = "nothing", "base"
LEFT, WIDTH, STEP, RIGHT = 150, 640, 34, 130  # pixels: names, the whole, a score's line, figures at the end
WORST = 20.0  # perplexity at the left end of its line, at most; what is worse stands there as a ring


class MixtureExplorer(Explorer):
    """Instruction rows, prose and preference pairs, mixed in one training run; and the four scores.

        explorer = mix_the_losses()
        explorer                                       # shows it
        explorer.set(prose=True, preference=False)
        explorer.set(beside="domain, instruction")     # one after the other, to compare with
        print(explorer.report())

    `instruction`, `prose` and `preference` say what is in the mixture (none of them: the base), `beside` what stands
    next to it. `case` is the mixture's name in the record, `found` its scores, `compared` those of `beside`: of each
    score the values of all seeds.
    """

    text = "Choose what is in the mixture here, in JupyterLab or Colab; or from Python as in the next cell."
    css, accent, label_width, column = "mixture", plots.TRAINED, "9em", 24

    def __init__(self, record: Mapping[str, Any] | None = None) -> None:
        self.points = (experiments.read("tuning") if record is None else record)["points"]
        known = dict.fromkeys(point["case"] for point in self.points)
        if BASE not in known:
            raise ValueError("the record holds no point of the base: run helpers.experiments.tuning first")
        chains = [name for name in known if not name.startswith("mixture")]
        self.may_be = {**dict.fromkeys(PARTS, one_of((True, False))), "beside": one_of((NOTHING, *chains))}
        self.instruction, self.prose, self.preference, self.beside = False, False, False, NOTHING
        self.limits = _limits(self.points)
        self._build({part: widgets.Checkbox(value=False, description=name, indent=False, layout={"width": "14em"})
                     for part, name in PARTS.items()},
                    {"beside": widgets.Dropdown(options=[NOTHING, *chains], description="Beside it")})
        self.set(instruction=f"mixture {_ratio((True, False, False))}" in known)

    def set(self, instruction: bool | None = None, prose: bool | None = None, preference: bool | None = None,
            beside: str | None = None) -> None:
        """Show another mixture, or another case beside it; None keeps what is shown."""
        super().set(instruction=instruction, prose=prose, preference=preference, beside=beside)

    @property
    def case(self) -> str:
        """The name of what is shown in the record."""
        parts = self.instruction, self.prose, self.preference
        return f"mixture {_ratio(parts)}" if any(parts) else BASE

    def _compute(self) -> None:
        self.found = _scores(self.points, self.case)
        self.compared = {} if self.beside == NOTHING else _scores(self.points, self.beside)

    def _rows(self) -> Iterable[Row]:
        inside = [name.lower() for part, name in PARTS.items() if getattr(self, part)]
        yield "mixture", f"{' + '.join(inside) or 'none: the base'} ({_seeds(self.found)})"
        if self.compared:
            yield "beside it", f"{self.beside} ({_seeds(self.compared)})"
        for score, name in SCORES.items():
            beside = f"; beside it {_said(score, self.compared[score])}" if self.compared else ""
            yield name, _said(score, self.found[score]) + beside

    def _picture(self) -> str:
        """A line for each score: a dot for each seed, orange; blue what stands beside; a stroke where the base is."""
        base, parts = _scores(self.points, BASE), []
        for n, (score, name) in enumerate(SCORES.items()):
            y = 24 + n * STEP
            parts += [words(name, LEFT - 12, y + 4, "end"),
                      tag("line", x1=LEFT, y1=y, x2=WIDTH - RIGHT, y2=y, stroke=plots.GREY, stroke_opacity=0.5),
                      words(_said(score, self.found[score]).partition(" (")[0], WIDTH - RIGHT + 14, y + 4, "start")]
            x = self._place(score, base[score][0])
            parts.append(tag("line", tag("title", "the base"), x1=x, y1=y - 9, x2=x, y2=y + 9, stroke="currentColor",
                             stroke_width=2))
            for colour, radius, values in ((plots.BLUE, 7, self.compared.get(score, ())),
                                           (plots.TRAINED, 5, self.found[score])):
                for value in values:
                    off = score == "perplexity" and value > self.limits[1]
                    look = {"fill": "none", "stroke": colour, "stroke_width": 2} if off else {"fill": colour}
                    parts.append(tag("circle", cx=self._place(score, value), cy=y, r=radius, **look))
        keys = [("the mixture, each seed", plots.TRAINED)] + [(self.beside, plots.BLUE)] * bool(self.compared)
        view, label = f"0 0 {WIDTH} {10 + STEP * len(SCORES)}", f"The four scores of {self.case}; better is right"
        return svg(view, label, *parts) + line(legend(keys) + "stroke: the base; better is right")

    def _place(self, score: str, value: float) -> float:
        """Where a score stands on its line, in pixels. Better is to the right: perplexity falls that way."""
        if score == "perplexity":
            low, high = (math.log(limit) for limit in self.limits)
            share = max(0.0, 1 - (math.log(value) - low) / (high - low))
        else:
            share = value
        return LEFT + 8 + share * (WIDTH - LEFT - RIGHT - 16)


def _ratio(parts: Iterable[bool]) -> str:
    return ":".join(str(int(part)) for part in parts)


def _limits(points: Iterable[Mapping[str, Any]]) -> tuple[float, float]:
    """The least and greatest perplexity on its line, never the same."""
    seen = [point["perplexity"] for point in points]
    return min(seen), max(min(max(seen), WORST), 1.01 * min(seen))


def _scores(points: Iterable[Mapping[str, Any]], case: str) -> dict[str, list[float]]:
    """Of each score the values of all seeds. Raises ValueError for a case that is not in the record."""
    found = [point for point in points if point["case"] == case]
    if not found:
        raise ValueError(f"{case}: that was not measured. Take another mixture.")
    return {score: [point[score] for point in found] for score in SCORES}


def _seeds(found: Mapping[str, list[float]]) -> str:
    count = len(found["facts"])
    return f"{count} seed{'s' * (count > 1)}"


def _said(score: str, values: list[float]) -> str:
    """`74 % (70 to 79)`, or `1.84 (1.83 to 1.86)`; of one value just that."""
    def one(value: float) -> str:
        if score == "perplexity":
            return f"{value:.2f}" if value < 100 else f"{value:,.0f}"
        return f"{100 * value:.0f} %"

    mean, low, high = one(statistics.fmean(values)), one(min(values)), one(max(values))
    return mean if low == high else f"{mean} ({re.sub(' %', '', low)} to {re.sub(' %', '', high)})"


mix_the_losses = MixtureExplorer
