"""What each process holds: its part of a weight, its part of a checkpoint."""

from __future__ import annotations

import random
import re

from helpers.exercises.engine import Case, Exercise, Mistake


def shard_rows(rows: int, processes: int) -> list[int]:
    """How many of a weight's rows each process holds, by rank; padding is not counted."""
    size = -(-rows // processes)  # rounded up: as much as anybody holds
    return [max(0, min(size, rows - rank * size)) for rank in range(processes)]


PART = "max(0, min(size, rows - rank * size))"
SHARD_ROWS = Exercise(13, shard_rows, "★★ A weight cut for eight · 6 min", """
FSDP2 cuts a weight by its rows, as `torch.chunk` does: all pieces have the same height, the rows divided by the
processes and rounded *up*, and rank 0 gets the first piece. What remains for the last ones may be less, or nothing;
such a piece is padded to the common height, so that all messages have one size. Return for each rank how many real
rows it holds, without the padding.
""",
    cases=(Case((12, 4), about="rows that divide"), Case((10, 4), about="rows that do not divide"),
           Case((5, 4), about="a rank that gets nothing"), Case((3, 8), about="fewer rows than processes"),
           Case((9, 4), about="three full pieces and a rank that gets nothing"), Case((7, 1), about="one process"),
           Case((32_000, 7), about="a vocabulary over seven")),
    draw=lambda rng: (rng.randint(1, 60), rng.randint(1, 9)),
    hints=("The common height first: how do you divide and round up?",
           "Rank 2 begins at row 2 · height. How many rows are left there? Perhaps fewer than none.",
           "`min(size, rows - rank * size)`, and never below 0; one number for every rank."),
    mistakes=(
        Mistake("Not spread evenly: all pieces but the last ones have the full height, and the end gets what is left.",
                (PART, "rows // processes + (rank < rows % processes)"),
                (PART, "rows // processes + (rank >= processes - rows % processes)")),
        Mistake("What remains of a division is 0 where the rows divide: then the last piece is a full one.",
                (f"[{PART} for rank in range(processes)]", "[size] * (processes - 1) + [rows % size]")),
        Mistake("That is where each piece begins. Asked for is how many rows it has.",
                (PART, "min(rows, rank * size)"), (PART, "rank * size")),
        Mistake("The height is rounded up, so the *last* piece is the small one; here it gets all that is left over.",
                (f"[{PART} for rank in range(processes)]",
                 "[rows // processes] * (processes - 1) + [rows - (processes - 1) * (rows // processes)]")),
        Mistake("That is the padded height. Asked for are the real rows of each.", (PART, "size")),
        Mistake("Nobody holds fewer rows than none: a rank behind the end has 0.",
                (PART, "min(size, rows - rank * size)")),
        Mistake("Every rank has its number, also those that hold nothing: the list is as long as there are processes.",
                ("range(processes)]", "range(processes) if rank * size < rows]")),
        Mistake("Full pieces went to all ranks but the last, also where the rows were used up before.",
                (f"[{PART} for rank in range(processes)]",
                 "[size] * (processes - 1) + [max(0, rows - (processes - 1) * size)]")),
        Mistake("Those are the rows of padding, not the real ones.", (PART, f"size - {PART}")),
        Mistake("The height is rounded up, not down: here rows at the end belong to nobody.",
                ("-(-rows // processes)", "rows // processes")),
        Mistake("The height is one too many where the rows divide.",
                ("-(-rows // processes)", "rows // processes + 1")),
        Mistake("Each rank holds its own piece, not all that is left from there on.", ("min(size, rows - rank * size)",
                "rows - rank * size")),
        Mistake("Rank 0 gets the first piece: the small one belongs to the last.", ("range(processes)]",
                "reversed(range(processes))]")),
    ),
    moral="Llama's sizes divide by 2, 4 and 8. A vocabulary with a few tokens added does not: one rank holds less.")


def whole_checkpoint(names: list[str], processes: int) -> int | None:
    """The newest step that so many processes can resume from, or None."""
    written: dict[int, set[int]] = {}
    for name in names:
        pattern = r"step-(\d+)/rank-(\d+)-of-(\d+)\.safetensors"
        if (found := re.fullmatch(pattern, name)) and int(found[3]) == processes:
            written.setdefault(int(found[1]), set()).add(int(found[2]))
    return max((step for step, ranks in written.items() if len(ranks) == processes), default=None)


def _step(step: int, ranks: str = "01", of: int = 2, end: str = "") -> list[str]:
    """The files of a step, one a rank; `end` follows the last one's name."""
    made = [f"step-{step}/rank-{rank}-of-{of}.safetensors" for rank in ranks]
    return [*made[:-1], made[-1] + end]


def _folder(rng: random.Random) -> tuple[list[str], int]:
    processes, names = rng.randint(1, 4), []
    for step in rng.sample((5, 9, 10, 80, 100, 1000), 4):
        of = rng.choice((processes, processes, processes + 1))
        ranks = "".join(str(rank) for rank in range(of) if rng.random() < 0.85) or "0"
        names += _step(step, ranks, of, rng.choice(("", "", ".part")))
    return rng.sample(names, len(names)), processes


def _newest_or_none(names: list[str], processes: int) -> int | None:
    steps = [int(found[1]) for name in names if (found := re.match(r"step-(\d+)/rank-", name))]
    whole = whole_checkpoint(names, processes)
    return whole if steps and whole == max(steps) else None


def _last_of_list(names: list[str], processes: int) -> int | None:
    ranks, answer = {}, None
    for name in names:
        found = re.fullmatch(r"step-(\d+)/rank-(\d+)-of-(\d+)\.safetensors", name)
        if found and int(found[3]) == processes:
            ranks.setdefault(int(found[1]), set()).add(found[2])
            answer = int(found[1]) if len(ranks[int(found[1])]) == processes else answer
    return answer


def _counted(names: list[str], processes: int) -> int | None:
    steps = [int(found[1]) for name in names if (found := re.match(r"step-(\d+)/", name))]
    return max((step for step in steps if steps.count(step) >= processes), default=None)


STEPS, NEWEST = "int(found[1]), set()", "step for step, ranks in written.items() if len(ranks) == processes"
WHOLE_CHECKPOINT = Exercise(13, whole_checkpoint, "★★★ Killed while it saved · 8 min", """
With FSDP every process writes its own part of a checkpoint: `step-400/rank-0-of-2.safetensors`, written under that
name with `.part` behind it and renamed when it is whole. Then one process is killed while it saves; perhaps the
others had finished theirs. The parts fit together only as they were cut: two processes resume from the two parts
`…-of-2`, not from eight. `names` are all files of the folder, in any order. From which step, the newest, can
`processes` processes resume? Where there is none, return None.
""",
    cases=((_step(200) + _step(400), 2),
           Case((_step(400) + _step(600, "0"), 2), about="a newest step that lacks the part of rank 1"),
           Case((_step(400) + _step(600, "1"), 2), about="a newest step that lacks the part of rank 0"),
           Case((_step(400) + _step(600, end=".part"), 2), about="a newest step with a part that is not renamed yet"),
           Case((_step(600)[::-1] + _step(400), 2), about="files that are not in the order of the steps"),
           Case((_step(90) + _step(1000), 2), about="steps with different numbers of digits"),
           Case((_step(600, "0123", 4) + _step(400), 2), about="a newest step that was cut for four"),
           Case((_step(600, "1", 2) + _step(600, "0", 4) + _step(400), 2), about="two parts of different cuts"),
           Case((_step(200, "01", 2) + _step(400, "0", 2) + _step(600, "1", 2), 2),
                about="every rank's newest part, of different steps"),
           Case(([f"step-5/rank-{rank}-of-11.safetensors" for rank in range(11)], 11), about="eleven processes"),
           Case((_step(600, "0", 2), 2), about="nothing that is whole"), Case(([], 1), about="an empty folder"),
           Case((_step(50, "0", 1) + ["notes.txt", "step-70/README.md"], 1), about="other files beside the parts")),
    draw=_folder,
    hints=("Collect for every step the ranks whose part is there, whole and cut for `processes`.",
           r"`re.fullmatch(r'step-(\d+)/rank-(\d+)-of-(\d+)\.safetensors', name)` reads three numbers, or is None.",
           "A step counts if it has `processes` ranks. `max(…, default=None)` of those steps, as numbers."),
    mistakes=(
        Mistake("That step lacks a part: every process needs its own.", (" if len(ranks) == processes", "")),
        Mistake("One rank's part, the first's or the last's, says nothing of the others': look for all of them.",
                ("len(ranks) == processes", "0 in ranks"), ("len(ranks) == processes", "processes - 1 in ranks")),
        Mistake("The files of a step were counted, whatever their names say: unfinished parts and those of another cut "
                "count too.", _counted),
        Mistake("A name that still ends in `.part` was never finished: it does not count.",
                ("re.fullmatch", "re.match")),
        Mistake("It was cut for another number of processes: those parts do not fit.",
                (" and int(found[3]) == processes", "", "len(ranks) == processes", "len(ranks) >= processes")),
        Mistake("Parts of different cuts do not make a whole, though their ranks are all there.",
                (" and int(found[3]) == processes", "")),
        Mistake("Compare the steps as numbers: as text, 90 comes behind 1000.",
                (STEPS, "found[1], set()", f"max(({NEWEST}), default=None)",
                 f"int(max(({NEWEST}), default=0)) or None")),
        Mistake("The newest step is not whole, but an older one is: look at the next before giving up.",
                lambda names, processes: _newest_or_none(names, processes)),
        Mistake("The order of the list says nothing: compare the steps.", _last_of_list),
        Mistake("That is the oldest. Asked for is the newest.", ("max(", "min(")),
        Mistake("Return the step as a number: not its folder.",
                (f"return max(({NEWEST}), default=None)",
                 f"step = max(({NEWEST}), default=None)\n    return step and f'step-{{step}}'")),
        Mistake("Where nothing can be resumed, the answer is None: step 0 was never written.",
                ("default=None", "default=0")),
        Mistake("Each rank has a newest part, but of different steps: one step must have all.",
                (STEPS, "0, set()",  f"return max(({NEWEST}), default=None)",
                 "steps = [int(n.split('/')[0][5:]) for n in names if n.endswith(f'-of-{processes}.safetensors')]\n"
                 "    return max(steps) if len(written.get(0, ())) == processes else None")),
    ),
    moral="Write beside, rename when whole, and believe a checkpoint only when all of its parts are there.")
