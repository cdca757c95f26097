"""Answers to lesson 13's exercises that nobody registered, written from the prompts alone."""

import itertools

import torch

from corpus import right, wrong

# packed_positions


@wrong("packed_positions", "begins anew only after the first document")
def _(lengths):
    first = lengths[0]
    return torch.cat([torch.arange(first), torch.arange(sum(lengths) - first)])[None]


@wrong("packed_positions", "goes on from the document before by one too few")
def _(lengths):
    starts = [0, *itertools.accumulate(lengths)][:-1]
    return torch.cat([torch.arange(n) + s for n, s in zip(lengths, starts, strict=True)])[None]


@wrong("packed_positions", "a row for each document, filled up with zeros")
def _(lengths):
    return torch.stack([torch.cat([torch.arange(n), torch.zeros(max(lengths) - n, dtype=torch.int64)])
                        for n in lengths])


@wrong("packed_positions", "floats in place of integers")
def _(lengths):
    return torch.cat([torch.arange(n).float() for n in lengths]).unsqueeze(0)


@wrong("packed_positions", "a list of lists, not a tensor")
def _(lengths):
    return [[i for n in lengths for i in range(n)]]


@wrong("packed_positions", "every document is taken to be as long as the first")
def _(lengths):
    return (torch.arange(sum(lengths)) % lengths[0])[None]


@right("packed_positions", "the place less the place where the document begins")
def _(lengths):
    sizes = torch.tensor(lengths)
    starts = sizes.cumsum(0) - sizes
    return (torch.arange(int(sizes.sum())) - torch.repeat_interleave(starts, sizes)).unsqueeze(0)


@right("packed_positions", "plain Python, a tensor at the end")
def _(lengths):
    return torch.tensor([[i for n in lengths for i in range(n)]])


# accumulated_loss


@wrong("accumulated_loss", "weighs a micro-batch by its rows")
def _(losses, labels):
    means = [loss[label != -100].mean().nan_to_num() * len(loss) for loss, label in zip(losses, labels, strict=True)]
    return sum(means) / sum(len(loss) for loss in losses)


@wrong("accumulated_loss", "weighs a micro-batch by its tokens, padding too")
def _(losses, labels):
    means = [loss[label != -100].mean().nan_to_num() * loss.numel()
             for loss, label in zip(losses, labels, strict=True)]
    return sum(means) / sum(loss.numel() for loss in losses)


@wrong("accumulated_loss", "counts the labels of the first micro-batch only")
def _(losses, labels):
    total = sum(loss[label != -100].sum() for loss, label in zip(losses, labels, strict=True))
    return total / (labels[0] != -100).sum()


@wrong("accumulated_loss", "skips the label 0 with a truth test")
def _(losses, labels):
    kept = [(label != -100) & (label != 0) for label in labels]
    total = sum(loss[keep].sum() for loss, keep in zip(losses, kept, strict=True))
    return total / sum(keep.sum() for keep in kept)


@wrong("accumulated_loss", "sets the losses without a label to zero and takes the mean of all tokens")
def _(losses, labels):
    flat = [loss.masked_fill(label == -100, 0).flatten() for loss, label in zip(losses, labels, strict=True)]
    return torch.cat(flat).mean()


@wrong("accumulated_loss", "divides twice: by the labels and by the micro-batches")
def _(losses, labels):
    total = sum(loss[label != -100].sum() for loss, label in zip(losses, labels, strict=True))
    return total / sum((label != -100).sum() for label in labels) / len(losses)


@right("accumulated_loss", "all labelled losses in one tensor")
def _(losses, labels):
    return torch.cat([loss[label != -100] for loss, label in zip(losses, labels, strict=True)]).mean()


@right("accumulated_loss", "means weighted by their numbers of labels")
def _(losses, labels):
    counts = [(label != -100).sum() for label in labels]
    means = [(loss * (label != -100)).sum() / count.clamp(min=1)
             for loss, label, count in zip(losses, labels, counts, strict=True)]
    return sum(mean * count for mean, count in zip(means, counts, strict=True)) / sum(counts)
