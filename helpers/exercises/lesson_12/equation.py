"""What the student builds in the lesson itself: the log-probability of an answer, and DPO's equation 7."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F

from helpers.exercises.draws import normal
from helpers.exercises.engine import Case, Exercise, Mistake


def sequence_logps(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The log-probability of each row's labelled tokens, summed: float (rows,)."""
    wanted = labels[:, 1:]
    logps = logits[:, :-1].log_softmax(-1)
    known = logps.gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
    return (known * (wanted != -100)).sum(-1)


def _rows(rng: random.Random, rows: int, length: int, vocabulary: int, prompt: int, pad: int = 0) -> tuple:
    labels = torch.tensor([[rng.randrange(vocabulary) for _ in range(length)] for _ in range(rows)])
    labels[:, :prompt] = -100
    if pad:
        labels[0, -pad:] = -100
    return normal(rng, rows, length, vocabulary), labels


def _drawn(rng: random.Random) -> tuple:
    return _rows(rng, rng.randint(2, 3), rng.randint(4, 6), rng.randint(3, 5), rng.randint(1, 2), rng.randint(0, 1))


SHIFT, SOFTMAX, MASK = "labels[:, 1:]", "logits[:, :-1].log_softmax(-1)", "(known * (wanted != -100)).sum(-1)"

SEQUENCE_LOGPS = Exercise(12, sequence_logps, "★★ Build: how likely is an answer? · 5 min", """
A model gives `logits` (rows, length, vocabulary). `labels` (rows, length) holds the token ids of the answer, and -100
on the prompt and on the padding. The logits at one place are about the token at the *next* place. Return for each row
log π(answer | prompt): the log-probability of every labelled token in natural logarithms, summed.
""",
    cases=(
        Case(_rows(random.Random(1), 1, 2, 3, 1), about="a prompt of one token and an answer of one"),
        Case(_rows(random.Random(2), 1, 4, 3, 1), about="an answer of three tokens"),
        Case(_rows(random.Random(3), 1, 5, 3, 2), about="a prompt of two tokens"),
        Case(_rows(random.Random(4), 2, 5, 4, 2, pad=1), about="a row with padding behind its answer"),
        Case((torch.tensor([[[0.0, 30.0], [0.0, 0.0]]]), torch.tensor([[-100, 0]])), about="a very unlikely token"),
    ),
    hints=("Three steps: shift by one, take the log-probability of the label at each place, add up what is labelled.",
           "`logits[:, :-1]` stands beside `labels[:, 1:]`. `log_softmax(-1)` makes log-probabilities; `gather` picks "
           "one of them at each place, and needs an index that is not negative.",
           "`logps.gather(-1, wanted.clamp(min=0)[..., None])[..., 0]`, times `(wanted != -100)`, summed over the "
           "last dimension."),
    mistakes=(
        Mistake("It is not shifted: the logits at a place were asked about the token *at* that place, which the model "
                "has just read.", (SHIFT, "labels", SOFTMAX, "logits.log_softmax(-1)")),
        Mistake("It is shifted the wrong way round: the logits at a place are about the token after it, not before.",
                (SHIFT, "labels[:, :-1]", SOFTMAX, "logits[:, 1:].log_softmax(-1)")),
        Mistake("The logits were summed as they are: without a softmax they are no log-probabilities.",
                (SOFTMAX, "logits[:, :-1]")),
        Mistake("Probabilities were summed, not their logarithms.", (SOFTMAX, "logits[:, :-1].softmax(-1)")),
        Mistake("The places without a label were counted, as if their label were token 0.", (MASK, "known.sum(-1)")),
        Mistake("The mask is not shifted with the labels: the prompt's last place counts, the answer's last does not.",
                ("wanted != -100", "labels[:, :-1] != -100")),
        Mistake("This is a mean over tokens, of each answer or of the whole batch: DPO takes the sum of each answer's.",
                (MASK, "(known * (wanted != -100)).sum(-1) / (wanted != -100).sum(-1)"),
                (MASK, "known[wanted != -100].mean().repeat(len(labels))")),
        Mistake("The token 0 is a token like any other: only -100 is no label.", ("wanted != -100", "wanted > 0")),
        Mistake("This is the loss: its sign is turned round. A log-probability is never above 0.",
                (MASK, "-(known * (wanted != -100)).sum(-1)")),
        Mistake("All rows were added up: one number for each row is wanted.",
                (MASK, "(known * (wanted != -100)).sum()")),
        Mistake("The softmax runs over the places, not over the vocabulary.",
                (SOFTMAX, "logits[:, :-1].log_softmax(1)")),
        Mistake("Logarithms to the base 2 (bits): natural ones (nats) are wanted.",
                (MASK, "(known * (wanted != -100)).sum(-1) / 0.6931471805599453")),
        Mistake("These are the log-probabilities of the likeliest tokens, not of the labels.",
                ("logps.gather(-1, wanted.clamp(min=0)[..., None])[..., 0]", "logps.amax(-1)")),
    ),
    draw=_drawn, tolerance=1e-5,
    moral="A longer answer has a lower sum: every token costs. Remember it when answers begin to shrink or grow.")


def dpo_loss(chosen: torch.Tensor, rejected: torch.Tensor,
             ref_chosen: torch.Tensor, ref_rejected: torch.Tensor,
             beta: float = 0.1) -> torch.Tensor:
    """Equation 7 for each pair, from log-probabilities: float (pairs,)."""
    gained = (chosen - ref_chosen) - (rejected - ref_rejected)
    return -F.logsigmoid(beta * gained)


def _pairs(rng: random.Random, pairs: int, beta: float) -> tuple:
    return (*(4 * normal(rng, pairs) - 9 for _ in range(4)), beta)


EQUAL = tuple(torch.tensor(row) for row in ([-9.0, -4.0], [-12.0, -7.0], [-9.0, -4.0], [-12.0, -7.0]))
ONE = tuple(torch.tensor([value]) for value in (-8.0, -15.0, -10.0, -12.0))
GAINED, LOSS = "(chosen - ref_chosen) - (rejected - ref_rejected)", "-F.logsigmoid(beta * gained)"

DPO_LOSS = Exercise(12, dpo_loss, "★★ Build: equation 7 · 4 min", """
`chosen` and `rejected` hold log π of the preferred and of the other answer to the same prompts, (pairs,); `ref_chosen`
and `ref_rejected` the same under the reference model. Return the loss of *each* pair:

$$ -\\log \\sigma\\Bigl(\\beta \\log \\frac{\\pi(y_w|x)}{\\pi_{ref}(y_w|x)}
   - \\beta \\log \\frac{\\pi(y_l|x)}{\\pi_{ref}(y_l|x)}\\Bigr) $$

y_w is the answer that won, y_l the one that lost, σ the logistic function. Margins of ±1,000 must come out finite.
""",
    cases=(
        Case((*EQUAL, 0.1), about="a model that is still the reference"),
        Case((*ONE, 0.1), about="the chosen answer gained 2 nats, the rejected one lost 3"),
        Case((*ONE, 0.5), about="a β of 0.5"),
        Case(ONE, about="no β given, which means 0.1"),
        Case(_pairs(random.Random(5), 3, 0.1), about="three pairs"),
        Case((torch.tensor([-1000.0, 0.0]), torch.tensor([0.0, -1000.0]), torch.zeros(2), torch.zeros(2), 1.0),
             about="margins of 1,000 nats"),
    ),
    hints=("The logarithm of a ratio is a difference of logarithms: nothing needs to be exponentiated.",
           "First what each answer gained over the reference, then the difference of the two gains, times β.",
           "`F.logsigmoid(x)` is log σ(x), and stays finite where `torch.sigmoid(x).log()` does not."),
    mistakes=(
        Mistake("Won and lost are exchanged: this makes the rejected answers likelier.", (GAINED, f"-({GAINED})")),
        Mistake("The reference is missing: each answer counts by what it *gained* over the reference.",
                (GAINED, "chosen - rejected")),
        Mistake("Only the chosen answer is compared with its reference; the rejected one has its own.",
                (GAINED, "(chosen - ref_chosen) - rejected")),
        Mistake("Only the chosen answer counts. The rejected one belongs into the difference.",
                (GAINED, "chosen - ref_chosen")),
        Mistake("The references count with the wrong sign: added where they belong subtracted, or exchanged.",
                (GAINED, "(chosen + ref_chosen) - (rejected + ref_rejected)"),
                (GAINED, "(chosen - ref_rejected) - (rejected - ref_chosen)")),
        Mistake("β is missing.", ("beta * gained", "gained")),
        Mistake("β stands outside of the sigmoid; it belongs inside.", (LOSS, "-beta * F.logsigmoid(gained)")),
        Mistake("β stands before one of the two gains only; it belongs before both.",
                (LOSS, "-F.logsigmoid(beta * (chosen - ref_chosen) - (rejected - ref_rejected))"),
                (LOSS, "-F.logsigmoid((chosen - ref_chosen) - beta * (rejected - ref_rejected))")),
        Mistake("It is divided by β, not multiplied.", ("beta * gained", "gained / beta")),
        Mistake("This is log σ, which is never above 0; the loss is its negative.", ("-F.logsig", "F.logsig")),
        Mistake("This is σ itself: its logarithm is missing.", (LOSS, "torch.sigmoid(beta * gained)")),
        Mistake("The pairs were averaged: one loss for each is wanted.", (LOSS, f"({LOSS}).mean()")),
        Mistake("Finite numbers went in, infinity came out: σ of a margin of -1,000 is rounded to 0, and its logarithm "
                "is minus infinity. `F.logsigmoid` does both at once.", (LOSS, "-torch.sigmoid(beta * gained).log()")),
        Mistake("A least value holds σ above 0: finite, but from there on a worse margin costs no more.",
                (LOSS, "-torch.sigmoid(beta * gained).clamp(min=1e-8).log()"),
                (LOSS, "-(torch.sigmoid(beta * gained) + 1e-12).log()"),
                (LOSS, "-F.logsigmoid((beta * gained).clamp(-50, 50))")),
        Mistake("Log-probabilities were divided by each other: the logarithm of a ratio is their difference.",
                (GAINED, "chosen / ref_chosen - rejected / ref_rejected"),
                (GAINED, "chosen / rejected - ref_chosen / ref_rejected")),
        Mistake("That is a hinge, 1 - margin where that is positive: equation 7 has -log σ of the margin.",
                (LOSS, "torch.relu(1 - beta * gained)"), (LOSS, "torch.relu(1 - gained)")),
        Mistake("The log-probabilities were exponentiated: the ratio's *logarithm* is wanted, a plain difference.",
                (GAINED, "(chosen - ref_chosen).exp() - (rejected - ref_rejected).exp()")),
    ),
    draw=lambda rng: _pairs(rng, rng.randint(2, 4), rng.choice([0.05, 0.1, 0.5])), tolerance=1e-5,
    moral="No reward model, no sampling: a classification loss on pairs. The reward is β·log(π/π_ref), implicit.")
