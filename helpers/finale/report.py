"""The report of a fine-tune on one page of HTML: nothing is loaded from elsewhere, nothing in it is run.

    page = write(Path("report.html"), **facts)      # what the template names, see `write`

What users and models wrote is escaped by jinja2, and the page forbids scripts to itself (Content-Security-Policy).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
from matplotlib.figure import Figure

from helpers import plots
from helpers.finale.chat import Conversation
from helpers.memory import GIB

TEMPLATE = Path(__file__).with_name("report.html.jinja")
LONGEST = 600  # characters of a text that are shown
RIGHT = "right, word for word"  # the name of a score
LOADING = """\
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

# on its base; needs peft
model = AutoPeftModelForCausalLM.from_pretrained("adapter")
# or merged, without peft: AutoModelForCausalLM.from_pretrained("merged")
tokenizer = AutoTokenizer.from_pretrained("adapter")
ids = tokenizer.apply_chat_template(
    [{{"role": "user", "content": "a question like those above"}}],
    add_generation_prompt=True, return_dict=True, return_tensors="pt")
out = model.generate(**ids, max_new_tokens={answer_tokens}, do_sample=False)
answer = out[0, ids["input_ids"].shape[1]:]
print(tokenizer.decode(answer, skip_special_tokens=True))"""


def curves(history: Sequence[Mapping[str, Any]]) -> tuple[Figure, str]:
    """Training and held-out loss over the steps, from a trainer's `state.log_history`; and the same in words.

    Raises ValueError where either of the two was never logged.
    """
    lines = {name: [(line["step"], line[key]) for line in history if key in line]
             for name, key in (("training rows", "loss"), ("held-out rows", "eval_loss"))}
    if missing := [name for name, points in lines.items() if not points]:
        raise ValueError(f"no loss of the {missing[0]} was logged: set logging_steps, eval_strategy and eval_steps")
    with mpl.rc_context(plots.STYLE):
        fig = Figure(figsize=(5.2, 3.2))  # its words can still be read on a phone
        ax = fig.add_subplot(xlabel="optimizer step", ylabel="loss (nats per token)", yscale="log")
        for (name, points), colour, marker in zip(lines.items(), (plots.ORANGE, plots.BLUE), (None, "o"), strict=True):
            ax.plot(*zip(*points, strict=True), color=colour, marker=marker, label=name)
        ax.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 3, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_locator(mpl.ticker.NullLocator())
        ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
        ax.legend()
    held_out = lines["held-out rows"]
    step, least = min(held_out, key=lambda point: point[1])
    rise = held_out[-1][1] / least
    ends = [f"from {points[0][1]:.2g} to {points[-1][1]:.2g}" for points in lines.values()]
    told = f"Loss over {held_out[-1][0]:,} steps. On the training rows it went {ends[0]}, on held-out rows {ends[1]}"
    return fig, told + (f"; it was least at step {step:,} ({least:.2g}), so fewer epochs would do." if rise > 1.05
                        else ", still about its least.")


def svg(fig: Figure) -> str:
    """The figure as a data: address of an SVG, words as paths: sharp on every screen, the same everywhere."""
    plots.rim_words(fig)
    buffer = io.BytesIO()
    with mpl.rc_context(plots.STYLE):
        fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def memory_rows(measured: Sequence[Mapping[str, Any]], forecast: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """(phase, forecast, used, minutes) from a recorder's `memory`; forecast: bytes by phase, where there is one.

    Used: on a GPU what torch allocated there at most, on a CPU all that the process held.
    """
    return [(phase["phase"], f"{forecast[phase['phase']] / GIB:.2f} GiB" if phase["phase"] in forecast else "none made",
             f"{phase.get('resident_bytes', phase['peak_bytes']) / GIB:.2f} GiB", f"{phase['seconds'] / 60:.1f} min")
            for phase in measured]


def cases(asked: Sequence[Conversation], before: Sequence[str], after: Sequence[str]) -> list[dict[str, str]]:
    """What stands side by side: each conversation's last question, both answers, and the one that was wanted."""
    return [dict(asked=talk[-2]["content"], before=old, after=new, wanted=talk[-1]["content"])
            for talk, old, new in zip(asked, before, after, strict=False)]


def files(folder: Path) -> list[tuple[str, str]]:
    """(name, size) of the weights in a run's folder: adapter, merged model, GGUF; checkpoints are left out."""
    found = [path for pattern in ("adapter/*.safetensors", "merged/*.safetensors", "*.gguf")
             for path in sorted(folder.glob(pattern))]
    return [(path.relative_to(folder).as_posix(), f"{path.stat().st_size:,} bytes") for path in found]


def loading(answer_tokens: int) -> str:
    """Code that loads what stands in a run's folder, started from there."""
    return LOADING.format(answer_tokens=answer_tokens)


def score(value: float, of: int | None = None) -> str:
    """A score as a table shows it: a share of so many things as "1 of 12", all else with three digits."""
    return f"{round(value * of)} of {of}" if of else f"{value:.3g}"


def verdict(before: Mapping[str, float], after: Mapping[str, float], asked_before: Mapping[str, float],
            asked_after: Mapping[str, float]) -> str:
    """What got worse of what it could do before, and on held-out rows (`asked_`); and where no answer there is right.

    Worse are losses and perplexities that rose, and shares that fell, by more than a tenth.
    """
    said = []
    if worse := _worse(asked_before, asked_after):
        said.append(f"Worse than before on held-out rows: {', '.join(worse)}. Do not use it as it is.")
    if asked_after.get(RIGHT) == 0:
        said.append("Not one held-out answer is right, word for word: read them before you trust it.")
    if worse := _worse(before, after):
        said.append(f"Worse than before: {', '.join(worse)}. Mix rows of that sort into yours, train less, or switch "
                    "the adapter off where it is not wanted.")
    return " ".join(said) or "Nothing that was checked got much worse. What was not checked may have."


def _worse(before: Mapping[str, float], after: Mapping[str, float]) -> list[str]:
    return [name for name in before if (after[name] > 1.1 * before[name] if "perplexity" in name or "loss" in name
                                        else after[name] < before[name] - 0.1)]


def write(path: Path, **facts: Any) -> Path:
    """Write the page; returns its path. Raises jinja2.UndefinedError for a fact that the template needs and lacks.

    title, subtitle, curve_alt, verdict, loading, footer: texts. curve: `svg`. scores, regression, data,
    faults, recipe, memory, files: rows of cells. cases: mappings with asked, before, after, wanted.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    facts["cases"] = [{key: shortened(text) for key, text in case.items()} for case in facts.get("cases", ())]
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(facts)
    path.write_text(page, encoding="utf-8", errors="replace", newline="\n")
    return path


def shortened(text: str, longest: int = LONGEST) -> str:
    """The beginning of a long text, and how much more there is."""
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text) - longest:,} more characters)"
