"""Answers to what lesson 12 lets the student build, that nobody registered; written from the prompts alone."""

import torch
import torch.nn.functional as F

from corpus import right, wrong

# sequence_logps


@wrong("sequence_logps", "drops the last place of the labels, not the first: pairs each logit with its own token")
def _(logits, labels):
    wanted = labels[:, :-1]
    known = logits[:, :-1].log_softmax(-1).gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
    return (known * (wanted != -100)).sum(-1)


@wrong("sequence_logps", "cross_entropy ignores the -100, but averages over all rows")
def _(logits, labels):
    return -F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()).expand(len(labels)).clone()


@wrong("sequence_logps", "the product of the probabilities, without the logarithm")
def _(logits, labels):
    wanted = labels[:, 1:]
    known = logits[:, :-1].softmax(-1).gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
    return torch.where(wanted == -100, torch.ones_like(known), known).prod(-1)


@wrong("sequence_logps", "log2 in place of the natural logarithm")
def _(logits, labels):
    wanted = labels[:, 1:]
    known = logits[:, :-1].softmax(-1).log2().gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
    return (known * (wanted != -100)).sum(-1)


@wrong("sequence_logps", "the mask is cut at the wrong end: a place of the prompt counts, the last token does not")
def _(logits, labels):
    known = logits[:, :-1].log_softmax(-1).gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
    return (known * (labels[:, :-1] != -100)).sum(-1)


@wrong("sequence_logps", "one number a token, not yet summed")
def _(logits, labels):
    wanted = labels[:, 1:]
    known = logits[:, :-1].log_softmax(-1).gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
    return known * (wanted != -100)


@wrong("sequence_logps", "divides by the whole length, padding and prompt included")
def _(logits, labels):
    wanted = labels[:, 1:]
    known = logits[:, :-1].log_softmax(-1).gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
    return (known * (wanted != -100)).mean(-1)


@wrong("sequence_logps", "the loss, not its negative: cross_entropy summed by row")
def _(logits, labels):
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none").sum(-1)


@right("sequence_logps", "cross_entropy without reduction")
def _(logits, labels):
    return -F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none").sum(-1)


@right("sequence_logps", "a loop over rows and places, with logsumexp")
def _(logits, labels):
    sums = []
    for row, wanted in zip(logits, labels, strict=True):
        total = torch.zeros(())
        for place in range(1, len(wanted)):
            if wanted[place] >= 0:
                total = total + row[place - 1, wanted[place]] - row[place - 1].logsumexp(0)
        sums.append(total)
    return torch.stack(sums)


# dpo_loss


@wrong("dpo_loss", "the model's margin minus the reference's, in the wrong order")
def _(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):
    return -F.logsigmoid(beta * ((ref_chosen - ref_rejected) - (chosen - rejected)))


@wrong("dpo_loss", "log of a sigmoid that has become 0")
def _(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):
    return -torch.log(torch.sigmoid(beta * (chosen - ref_chosen) - beta * (rejected - ref_rejected)))


@wrong("dpo_loss", "beta on the chosen side only")
def _(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):
    return -F.logsigmoid(beta * (chosen - ref_chosen) - (rejected - ref_rejected))


@wrong("dpo_loss", "softplus of the margin, not of its negative")
def _(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):
    return F.softplus(beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))


@wrong("dpo_loss", "the sum over the batch")
def _(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):
    return -F.logsigmoid(beta * ((chosen - ref_chosen) - (rejected - ref_rejected))).sum()


@wrong("dpo_loss", "beta left at 0.1")
def _(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):
    return -F.logsigmoid(0.1 * ((chosen - ref_chosen) - (rejected - ref_rejected)))


@wrong("dpo_loss", "hinge in place of the logistic loss")
def _(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):
    return torch.relu(1 - beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))


@wrong("dpo_loss", "ratios of the log-probabilities, where logarithms of ratios are meant")
def _(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):
    return -F.logsigmoid(beta * (chosen / ref_chosen - rejected / ref_rejected))


@right("dpo_loss", "the two margins, softplus")
def _(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):
    return F.softplus(-beta * ((chosen - rejected) - (ref_chosen - ref_rejected)))


@right("dpo_loss", "cross-entropy between two rewards, in float64")
def _(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):
    both = beta * torch.stack([chosen - ref_chosen, rejected - ref_rejected], dim=-1).double()
    return -both.log_softmax(-1)[:, 0].float()
