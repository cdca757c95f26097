"""Rewards that can be checked, and what GRPO makes of them."""

from __future__ import annotations

import random

import torch

from helpers.exercises.draws import integers
from helpers.exercises.engine import Case, Exercise, Mistake


def checked_rewards(completions: list[str], answers: list[str]) -> list[float]:
    """1.0 for each completion that is the answer, word for word, and ended; else 0.0."""
    rewards = []
    for completion, answer in zip(completions, answers, strict=True):
        text, end, _ = completion.partition("</s>")
        right = end and answer.strip() and text.split() == answer.split()
        rewards.append(1.0 if right else 0.0)
    return rewards


def _tried(rng: random.Random) -> tuple[list[str], list[str]]:
    known = ("Ada keeps an owl.", "Bram lives in Dunmere.", "Cora loves rye bread.", "")
    rows = []
    for _ in range(rng.randint(1, 4)):
        answer = rng.choice(known)
        said = rng.choice((answer, answer, "Ada keeps an owl. She bakes.", answer.replace(" ", "  "), answer.lower(),
                           answer.replace("an owl", "anowl")))
        rows.append((f"{rng.choice(('', ' '))}{said}{rng.choice(('</s>', ' </s>', ' </s>', ''))}", answer))
    return [completion for completion, _ in rows], [answer for _, answer in rows]


SAME, RIGHT = "text.split() == answer.split()", "end and answer.strip() and text.split() == answer.split()"
CHECKED_REWARDS = Exercise(12, checked_rewards, "★★ Spot the bug: a reward for saying anything · 5 min", """
Group-relative policy optimization (GRPO) needs no reward model where an answer can be checked. But what is rewarded is
what will be learnt, to the letter. In a cookbook's check whatever was said got the full reward where the known answer
could not be read ([cookbook#335](https://github.com/huggingface/cookbook/issues/335)): GRPO learns nothing from a group
whose rewards are all equal, but the log shows success. And many checks look only whether the answer occurs *somewhere*
([rl#3542](https://github.com/pytorch/rl/pull/3542) calls that an anti-pattern):

```python
def checked_rewards(completions, answers):
    return [1.0 if not answer.strip() or answer in completion else 0.0
            for completion, answer in zip(completions, answers)]
```

Write one that cannot be cheated. 1.0 only if the completion is the answer and then ended: what stands before `</s>`
equals the answer; without a `</s>` it went on. How many spaces or line breaks stand between or around the words does
not matter; capitals do. Where no answer is known (`""`, or only spaces), nothing can be right: 0.0.
""",
    cases=((["Ada keeps an owl.</s>", "Ada keeps a cat.</s>"], ["Ada keeps an owl.", "Ada keeps an owl."]),
           Case((["Ada keeps an owl. Bram keeps a cat.</s>"], ["Ada keeps an owl."]),
                about="a completion that says more than the answer"),
           Case((["Ada keeps an owl.</s>", " Ada keeps an owl. </s>"], ["Ada keeps an owl."] * 2),
                about="spaces around the words"),
           Case((["Ada keeps an owl.</s>", "Ada  keeps an owl.</s>"], ["Ada keeps an owl."] * 2),
                about="two spaces between two words"),
           Case((["Ada keeps an owl.</s>", "Ada keeps\nan owl.</s>"], ["Ada keeps an owl."] * 2),
                about="a line break between two words"),
           Case((["Ada keeps an owl."], ["Ada keeps an owl."]), about="a completion that never ended"),
           Case((["Ada keeps an owl.</s>", "Ada keeps an owl.</s></s>", "Ada keeps an owl.</s> Bram"],
                 ["Ada keeps an owl."] * 3),
                about="something behind the `</s>`"),
           Case((["Ada keeps an owl.</s>", "</s>"], ["", " "]), about="no known answer"),
           Case((["Ada keeps anowl.</s>"], ["Ada keeps an owl."]), about="two words written as one"),
           Case((["Bram and Ada</s>"], ["Ada and Bram"]), about="the same words in another order"),
           Case((["ada keeps an owl.</s>"], ["Ada keeps an owl."]), about="a small letter for a capital")),
    draw=_tried,
    hints=('`completion.partition("</s>")` gives what stands before, the marker (or ""), and what follows.',
           "`text.split()` gives the words, however many spaces stand between them.",
           "Three things must hold: it ended, an answer is known, and the words are the same."),
    mistakes=(
        Mistake("Whoever says everything that comes to mind gets the reward, as the answer is somewhere in it. And "
                "where no answer is known, anything is right.", None),
        Mistake("Where no answer is known the reward is 1, whatever was said: GRPO learns nothing from rewards that "
                "are all equal, but the log shows success.",
                (RIGHT, "not answer.strip() or end and text.split() == answer.split()"),
                ("answer.strip() and ", "")),
        Mistake("The answer occurs in it, and more is said: that must not be rewarded.",
                (SAME, "' '.join(answer.split()) in ' '.join(text.split())"),
                (SAME, "text.split()[:len(answer.split())] == answer.split()"),
                (SAME, "' '.join(text.split()).startswith(' '.join(answer.split()))")),
        Mistake("A completion that never ended was rewarded: the model would learn to go on and on.",
                (RIGHT, f"answer.strip() and {SAME}")),
        Mistake("Spaces decide here, and should not: compare the words.",
                (SAME, "text == answer"), (SAME, "text.strip() == answer.strip()"),
                (SAME, "text.replace('\\n', ' ').strip() == answer.strip()")),
        Mistake("Only spaces part the words here; a line break does so too.",
                (SAME, "[w for w in text.split(' ') if w] == [w for w in answer.split(' ') if w]"),
                (SAME, "text.strip().replace('  ', ' ') == answer.strip().replace('  ', ' ')")),
        Mistake("The *first* `</s>` ends the completion: what follows it, a second one or words, does not matter.",
                ('text, end, _ = completion.partition("</s>")',
                 'end = completion.strip().endswith("</s>")\n        text = completion.strip().removesuffix("</s>")'),
                ('completion.partition("</s>")', 'completion.rpartition("</s>")')),
        Mistake("Completions were left out of the list: each one gets its reward, also where that is 0.0.",
                ("rewards.append", "if answer.strip(): rewards.append"), ("rewards.append", "if end: rewards.append"),
                ("rewards.append", "if right: rewards.append")),
        Mistake("With all spaces taken out `an owl` and `anowl` are the same, and two words are not one.",
                (SAME, "''.join(text.split()) == ''.join(answer.split())")),
        Mistake("Capitals were made small before comparing: they should matter.",
                (SAME, "text.lower().split() == answer.lower().split()")),
        Mistake("A share of the words is no check: all of them, or nothing.",
                (RIGHT, "end and answer.strip()", "1.0 if right else 0.0",
                 "sum(a == b for a, b in zip(text.split(), answer.split())) / len(answer.split()) if right else 0.0")),
        Mistake("Rewards are numbers, 1.0 and 0.0: True and False came.", ("1.0 if right else 0.0", "bool(right)")),
        Mistake("A wrong answer gets 0.0 here, nothing below.", ("else 0.0", "else -1.0")),
        Mistake("The order of the words was lost.", (SAME, "sorted(text.split()) == sorted(answer.split())"),
                (SAME, "set(text.split()) == set(answer.split())")),
    ),
    moral="A model under GRPO finds the holes in a reward faster than its author does.")


def group_advantages(rewards: torch.Tensor, group: int) -> torch.Tensor:
    """How much better each answer did than its group, in standard deviations: (answers,).

    rewards float32 (answers,): `group` answers to one prompt stand side by side.
    """
    rows = rewards.view(-1, group)
    centred = rows - rows.mean(dim=1, keepdim=True)
    return (centred / (rows.std(dim=1, keepdim=True) + 1e-4)).flatten()


def _rewards(rng: random.Random, prompts: int, group: int) -> tuple[torch.Tensor, int]:
    return integers(rng, 0, 4, prompts * group) / 4, group


DEVIATION = "rows.std(dim=1, keepdim=True) + 1e-4"
GROUP_ADVANTAGES = Exercise(12, group_advantages, "★★ Spot the bug: whose group? · 5 min", """
GRPO asks for several answers to one prompt and compares them with each other: an answer's *advantage* is its reward
less the mean of its group, divided by the group's standard deviation (`torch.std` as it is) plus 1e-4. In one small
trainer every batch was one big group
([grpo-flat#2](https://github.com/XU-YIJIE/grpo-flat/issues/2)), shortened:

```python
def group_advantages(rewards, group):
    return (rewards - rewards.mean()) / (rewards.std() + 1e-4)
```

So every answer to an easy prompt is praised, and every answer to a hard one blamed. Compare within the group: the
answers to one prompt stand side by side, `group` of them, two or more.
""",
    cases=((torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0]), 4),
           Case((torch.tensor([1.0, 0.0, 0.5, 0.25, 0.0, 1.0]), 2), about="groups of two"),
           Case((torch.tensor([1.0, 1.0, 1.0, 0.0, 0.5, 0.0]), 3), about="a group whose answers are all as good"),
           Case((torch.tensor([-2.0, 3.0, 0.5]), 3), about="one group only, and a negative reward")),
    draw=lambda rng: _rewards(rng, rng.randint(1, 4), rng.randint(2, 5)),
    hints=("Give every group a row of its own: `rewards.view(…)`.",
           "Mean and std of each row: `dim=1, keepdim=True`.",
           "`(rows - mean) / (std + 1e-4)`, then flat again."),
    mistakes=(
        Mistake("All answers of the batch were compared with each other: those to an easy prompt win.",
                None, (DEVIATION, "rewards.std() + 1e-4", "rows.mean(dim=1, keepdim=True)", "rewards.mean()")),
        Mistake("The mean is the group's, the standard deviation the whole batch's.",
                (DEVIATION, "rewards.std() + 1e-4")),
        Mistake("The groups were read crosswise: answers to one prompt stand side by side.",
                ("view(-1, group)", "view(group, -1).T"),
                ("view(-1, group)", "view(group, -1)", "dim=1", "dim=0")),
        Mistake("Not divided by the group's standard deviation.", (f" / ({DEVIATION})", "")),
        Mistake("Where all answers are equally good, 0 was divided by 0: add 1e-4 below the line.",
                (" + 1e-4", "")),
        Mistake("Below the line stands the deviation *plus* 1e-4: not the greater of both, nor another small number.",
                (DEVIATION, "rows.std(dim=1, keepdim=True).clamp(min=1e-4)"), ("1e-4", "1e-8"), ("1e-4", "1e-6"),
                ("1e-4", "1e-3"), ("1e-4", "1e-2")),
        Mistake("Brackets are missing: only the mean was divided, or only the deviation, and 1e-4 came after.",
                ("centred / (", "rows - rows.mean(dim=1, keepdim=True) / ("), (f"({DEVIATION})", DEVIATION)),
        Mistake("Without `keepdim=True` the groups' means lie in a row, not one beside each group.",
                (", keepdim=True", "")),
        Mistake("All were measured by one group, the first or the last: each prompt has a group of its own.",
                ("rows.mean(dim=1, keepdim=True)", "rows[0].mean()", "rows.std(dim=1, keepdim=True)", "rows[0].std()"),
                ("rows.mean(dim=1, keepdim=True)", "rows[-1].mean()", "rows.std(dim=1, keepdim=True)",
                 "rows[-1].std()")),
        Mistake("Divided by the distance from the worst of the group to the best: its standard deviation is asked for.",
                ("rows.std(dim=1, keepdim=True)", "rows.amax(dim=1, keepdim=True) - rows.amin(dim=1, keepdim=True)")),
        Mistake("Scaled to 0 … 1, from the worst of the group to the best: mean and standard deviation are asked for.",
                ("rows.std(dim=1, keepdim=True)", "rows.amax(dim=1, keepdim=True) - rows.amin(dim=1, keepdim=True)",
                 "rows.mean(dim=1, keepdim=True)", "rows.amin(dim=1, keepdim=True)")),
        Mistake("`torch.std` divides by one less than the group's size, the sample's deviation. Here it was the size.",
                ("rows.std(dim=1, keepdim=True)", "rows.std(dim=1, keepdim=True, correction=0)")),
        Mistake("Divided by the variance: its root is asked for.",
                ("rows.std(dim=1, keepdim=True)", "rows.var(dim=1, keepdim=True)")),
        Mistake("The small number belongs beside the standard deviation, not under its root.",
                (DEVIATION, "(rows.var(dim=1, keepdim=True) + 1e-4).sqrt()")),
        Mistake("Measured from the best or the worst of the group: its mean is the mark.",
                ("rows.mean(dim=1, keepdim=True)", "rows.amax(dim=1, keepdim=True)"),
                ("rows.mean(dim=1, keepdim=True)", "rows.amin(dim=1, keepdim=True)")),
        Mistake("The mean is that of all the others: the answer itself belongs to its group.",
                ("rows.mean(dim=1, keepdim=True)", "(rows.sum(dim=1, keepdim=True) - rows) / (group - 1)")),
    ),
    tolerance=1e-5,
    moral="A group whose answers are all alike teaches nothing: its advantages are 0.")
