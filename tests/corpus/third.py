"""Answers to the exercises of lessons 12 and 13, written from the prompts alone."""

import re
from fractions import Fraction
from itertools import groupby

import torch
import torch.nn.functional as F

from corpus import right, wrong


@wrong("sequence_logps", "takes token 0 for padding: only labels above 0 count")
def _(logits, labels):
    targets = labels[:, 1:]
    logps = logits[:, :-1].log_softmax(-1)
    picked = logps.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return (picked * (targets > 0)).sum(-1)


@wrong("sequence_logps", "shifts the labels but not the mask, which still belongs to the unshifted places")
def _(logits, labels):
    mask = labels[:, :-1] != -100
    targets = labels[:, 1:].clamp(min=0)
    logps = logits[:, :-1].log_softmax(-1)
    return (logps.gather(-1, targets.unsqueeze(-1)).squeeze(-1) * mask).sum(-1)


@wrong("sequence_logps", "adds 1e-6 to the probability before the logarithm, so an unlikely token costs 13.8 at most")
def _(logits, labels):
    targets = labels[:, 1:]
    probabilities = logits[:, :-1].softmax(-1)
    picked = probabilities.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return ((picked + 1e-6).log() * (targets != -100)).sum(-1)


@right("sequence_logps", "a loop over rows and places, with logsumexp in float64")
def _(logits, labels):
    sums = torch.zeros(len(logits), dtype=torch.float64)
    for row in range(labels.shape[0]):
        for place in range(1, labels.shape[1]):
            token = int(labels[row, place])
            if token != -100:
                scores = logits[row, place - 1].double()
                sums[row] += scores[token] - scores.logsumexp(0)
    return sums.float()


@wrong("dpo_loss", "crosses the references: each answer is compared with the reference of the other")
def _(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):
    return -F.logsigmoid(beta * ((chosen - ref_rejected) - (rejected - ref_chosen)))


@wrong("dpo_loss", "β multiplies only the winner's log ratio")
def _(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):
    return -F.logsigmoid(beta * (chosen - ref_chosen) - (rejected - ref_rejected))


@wrong("dpo_loss", "keeps it finite by clamping the sigmoid at 1e-12, so that no loss is above 27.6")
def _(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):
    margin = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    return -torch.sigmoid(margin).clamp(min=1e-12).log()


@right("dpo_loss", "log(1 + exp(-margin)) by logaddexp")
def _(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):
    margin = beta * (chosen - rejected) - beta * (ref_chosen - ref_rejected)
    return torch.logaddexp(torch.zeros_like(margin), -margin)


@wrong("what_is_missing", "expects `lora_` at the beginning of the name, where the layer's name stands")
def _(model, row):
    missing = []
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    if not any(name.startswith("lora_") for name in trained):
        missing.append("adapter")
    if any(not name.startswith("lora_") for name in trained):
        missing.append("frozen base")
    if all(label == -100 for label in row.get("labels", [])):
        missing.append("labels")
    return missing


@wrong("what_is_missing", "a chain of elif: only the first thing that is missing is told")
def _(model, row):
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    if not any("lora_" in name for name in trained):
        return ["adapter"]
    elif any("lora_" not in name for name in trained):
        return ["frozen base"]
    elif all(label == -100 for label in row.get("labels", [])):
        return ["labels"]
    return []


@wrong("what_is_missing", "looks only at parameters called weight: a trained bias is overlooked")
def _(model, row):
    missing = []
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    if not any("lora_" in name for name in trained):
        missing.append("adapter")
    if any(name.endswith("weight") and "lora_" not in name for name in trained):
        missing.append("frozen base")
    if all(label == -100 for label in row.get("labels", [])):
        missing.append("labels")
    return missing


@right("what_is_missing", "a dictionary of questions, and sets")
def _(model, row):
    kinds = {"lora_" in name for name, weight in model.named_parameters() if weight.requires_grad}
    asked = {"adapter": True not in kinds, "frozen base": False in kinds,
             "labels": not set(row.get("labels", ())) - {-100}}
    return [name for name, lacks in asked.items() if lacks]


@wrong("mixed_loss", "goes over the rows instead of the kinds: a kind's weight counts once for each of its rows")
def _(losses, kinds, weights):
    means = {kind: torch.cat([loss for loss, of in zip(losses, kinds, strict=True) if of == kind]).mean()
             for kind in kinds}
    return sum(weights[kind] * means[kind] for kind in kinds) / sum(weights[kind] for kind in kinds)


@wrong("mixed_loss", "groupby without sorting: rows of a kind that do not stand side by side become two kinds")
def _(losses, kinds, weights):
    total, weight = 0.0, 0.0
    for kind, rows in groupby(zip(kinds, losses, strict=True), key=lambda pair: pair[0]):
        total = total + weights[kind] * torch.cat([loss for _, loss in rows]).mean()
        weight += weights[kind]
    return total / weight


@wrong("mixed_loss", "divides by the number of kinds present instead of by their weights")
def _(losses, kinds, weights):
    present = sorted(set(kinds))
    means = [torch.cat([loss for loss, of in zip(losses, kinds, strict=True) if of == kind]).mean() for kind in present]
    return sum(weights[kind] * mean for kind, mean in zip(present, means, strict=True)) / len(present)


@right("mixed_loss", "sums and counts by kind in one pass, in float64")
def _(losses, kinds, weights):
    sums, counts = {}, {}
    for loss, kind in zip(reversed(losses), reversed(kinds), strict=True):
        sums[kind] = sums.get(kind, 0) + loss.double().sum()
        counts[kind] = counts.get(kind, 0) + loss.numel()
    share = torch.tensor([weights[kind] for kind in sums], dtype=torch.float64)
    means = torch.stack([sums[kind] / counts[kind] for kind in sums])
    return (share / share.sum() @ means).float()


@wrong("checked_rewards", "removes every space, so that `4 2` passes for `42`")
def _(completions, answers):
    rewards = []
    for completion, answer in zip(completions, answers, strict=True):
        said, end, _ = completion.partition("</s>")
        same = "".join(said.split()) == "".join(answer.split())
        rewards.append(1.0 if end and answer.strip() and same else 0.0)
    return rewards


@wrong("checked_rewards", "wants `</s>` as the very last thing, so whatever follows it (more `</s>`) costs the reward")
def _(completions, answers):
    rewards = []
    for completion, answer in zip(completions, answers, strict=True):
        text = completion.strip()
        same = text.removesuffix("</s>").split() == answer.split()
        rewards.append(1.0 if text.endswith("</s>") and answer.strip() and same else 0.0)
    return rewards


@wrong("checked_rewards", "makes several spaces one, but leaves line breaks between the words as they are")
def _(completions, answers):
    rewards = []
    for completion, answer in zip(completions, answers, strict=True):
        said, end, _ = completion.partition("</s>")
        said, known = (re.sub(" +", " ", text).strip() for text in (said, answer))
        rewards.append(1.0 if end and known and said == known else 0.0)
    return rewards


@right("checked_rewards", "one regular expression, made from the answer's words")
def _(completions, answers):
    rewards = []
    for completion, answer in zip(completions, answers, strict=True):
        words = r"\s+".join(re.escape(word) for word in answer.split())
        rewards.append(float(bool(words) and re.match(rf"\s*{words}\s*</s>", completion) is not None))
    return rewards


@wrong("group_advantages", "1e-4 as the least standard deviation, instead of added to it")
def _(rewards, group):
    groups = rewards.view(-1, group)
    spread = groups.std(1, keepdim=True).clamp(min=1e-4)
    return ((groups - groups.mean(1, keepdim=True)) / spread).flatten()


@wrong("group_advantages", "forgot the brackets: only the mean is divided by the standard deviation")
def _(rewards, group):
    groups = rewards.view(-1, group)
    return (groups - groups.mean(1, keepdim=True) / (groups.std(1, keepdim=True) + 1e-4)).flatten()


@wrong("group_advantages", "compares each answer with the mean of the others, itself left out")
def _(rewards, group):
    groups = rewards.view(-1, group)
    others = (groups.sum(1, keepdim=True) - groups) / (group - 1)
    return ((groups - others) / (groups.std(1, keepdim=True) + 1e-4)).flatten()


@right("group_advantages", "a loop over the groups by split, with std_mean")
def _(rewards, group):
    parts = []
    for part in rewards.split(group):
        std, mean = torch.std_mean(part)
        parts.append((part - mean) / (std + 1e-4))
    return torch.cat(parts)


@wrong("ipo_losses", "a hinge: a margin above the target costs nothing")
def _(chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, beta):
    margin = (chosen - ref_chosen) / chosen_tokens - (rejected - ref_rejected) / rejected_tokens
    return (1 / (2 * beta) - margin).clamp(min=0) ** 2


@wrong("ipo_losses", "divides the margin of the sums by the mean length of the two answers")
def _(chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, beta):
    margin = (chosen - ref_chosen) - (rejected - ref_rejected)
    return (margin / ((chosen_tokens + rejected_tokens) / 2) - 1 / (2 * beta)) ** 2


@wrong("ipo_losses", "forgot brackets: only the reference's log-probabilities are divided by the tokens")
def _(chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, beta):
    margin = (chosen - ref_chosen / chosen_tokens) - (rejected - ref_rejected / rejected_tokens)
    return (margin - 1 / (2 * beta)) ** 2


@right("ipo_losses", "mse_loss without reduction, against a tensor full of the target")
def _(chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, beta):
    policy = chosen / chosen_tokens - rejected / rejected_tokens
    reference = ref_chosen / chosen_tokens - ref_rejected / rejected_tokens
    return F.mse_loss(policy - reference, torch.full_like(policy, 0.5 / beta), reduction="none")


@wrong("packed_positions", "takes off only the length of the document before, not of all before")
def _(lengths):
    positions, start = torch.arange(sum(lengths)), 0
    for index, length in enumerate(lengths):
        if index:
            positions[start:start + length] -= lengths[index - 1]
        start += length
    return positions.unsqueeze(0)


@wrong("packed_positions", "a remainder by the first length: as if all documents were as long as the first")
def _(lengths):
    return (torch.arange(sum(lengths)) % lengths[0]).unsqueeze(0)


@wrong("packed_positions", "the places are float32: torch.zeros without a dtype, then filled")
def _(lengths):
    positions, start = torch.zeros(1, sum(lengths)), 0
    for length in lengths:
        positions[0, start:start + length] = torch.arange(length)
        start += length
    return positions


@right("packed_positions", "the place in the row less the document's start, repeated for each of its tokens")
def _(lengths):
    sizes = torch.tensor(lengths, dtype=torch.int64)
    starts = sizes.cumsum(0) - sizes
    return (torch.arange(int(sizes.sum())) - starts.repeat_interleave(sizes))[None]


@wrong("accumulated_loss", "counts labels above 0: token 0 is taken for no label")
def _(losses, labels):
    total = sum(loss[label > 0].sum() for loss, label in zip(losses, labels, strict=True))
    return total / sum((label > 0).sum() for label in labels)


@wrong("accumulated_loss", "the mean of the rows' means: a row counts as much as another, however few labels it has")
def _(losses, labels):
    means = [row[label != -100].mean() for loss, of in zip(losses, labels, strict=True)
             for row, label in zip(loss, of, strict=True)
             if (label != -100).any()]
    return torch.stack(means).mean()


@wrong("accumulated_loss", "weights each micro-batch's mean by all its tokens, the uncounted ones too")
def _(losses, labels):
    total = sum(loss[label != -100].mean() * label.numel() for loss, label in zip(losses, labels, strict=True)
                if (label != -100).any())
    return total / sum(label.numel() for label in labels)


@right("accumulated_loss", "one flat list of the counted losses, averaged in float64")
def _(losses, labels):
    flat = torch.cat([loss.reshape(-1) for loss in losses]).double()
    return flat.masked_select(torch.cat([label.reshape(-1) for label in labels]).ne(-100)).mean().float()


@wrong("shard_rows", "gives all but the last rank full pieces, even where the rows are used up before")
def _(rows, processes):
    height = -(-rows // processes)
    return [height] * (processes - 1) + [max(0, rows - height * (processes - 1))]


@wrong("shard_rows", "rounds up by adding 1 always, also where the rows divide")
def _(rows, processes):
    height = rows // processes + 1
    return [max(0, min(height, rows - rank * height)) for rank in range(processes)]


@wrong("shard_rows", "works out the height anew for every rank from what is left, which levels the pieces")
def _(rows, processes):
    held, left = [], rows
    for rank in range(processes):
        piece = -(-left // (processes - rank))
        held.append(piece)
        left -= piece
    return held


@right("shard_rows", "asks torch.chunk itself, on the row numbers")
def _(rows, processes):
    held = [len(piece) for piece in torch.arange(rows).chunk(processes)]
    return held + [0] * (processes - len(held))


@wrong("waiting_share", "lets the processes wait only once, at the end of all steps")
def _(lengths, batch, processes):
    times = [0] * processes
    for index in range(0, len(lengths), batch):
        times[index // batch % processes] += max(lengths[index:index + batch])
    return 1 - sum(times) / (processes * max(times))


@wrong("waiting_share", "cuts the list into one long stretch for each process, instead of dealing every step's rows")
def _(lengths, batch, processes):
    share = len(lengths) // processes
    times = [[max(lengths[rank * share + at:rank * share + at + batch]) for at in range(0, share, batch)]
             for rank in range(processes)]
    slowest = sum(max(step) for step in zip(*times, strict=True))
    return 1 - sum(map(sum, times)) / (processes * slowest)


@wrong("waiting_share", "divides the waiting by the time at work, not by all the time")
def _(lengths, batch, processes):
    working = waiting = 0
    for start in range(0, len(lengths), batch * processes):
        times = [max(lengths[start + rank * batch:start + (rank + 1) * batch]) for rank in range(processes)]
        working += sum(times)
        waiting += sum(max(times) - time for time in times)
    return waiting / working


@right("waiting_share", "a tensor of steps, processes and rows; the share as an exact fraction")
def _(lengths, batch, processes):
    times = torch.tensor(lengths).view(-1, processes, batch).amax(2)
    return float(1 - Fraction(int(times.sum()), int(times.amax(1).sum()) * processes))


@wrong("whole_checkpoint", "reads one digit of the rank, so the parts from the eleventh on are not seen")
def _(names, processes):
    ranks = {}
    for name in names:
        found = re.fullmatch(rf"step-(\d+)/rank-(\d)-of-{processes}\.safetensors", name)
        if found:
            ranks.setdefault(int(found[1]), set()).add(int(found[2]))
    whole = [step for step, seen in ranks.items() if len(seen) == processes]
    return max(whole) if whole else None


@wrong("whole_checkpoint", "counts a step's finished parts, however they were cut: two of eight pass for two of two")
def _(names, processes):
    counts = {}
    for name in names:
        found = re.fullmatch(r"step-(\d+)/rank-(\d+)-of-(\d+)\.safetensors", name)
        if found:
            counts[int(found[1])] = counts.get(int(found[1]), 0) + 1
    return max((step for step, count in counts.items() if count >= processes), default=None)


@wrong("whole_checkpoint", "looks only at the newest step: where that is not whole, it goes back to none before it")
def _(names, processes):
    steps = [int(re.match(r"step-(\d+)/", name)[1]) for name in names if re.match(r"step-(\d+)/", name)]
    if not steps:
        return None
    newest = max(steps)
    wanted = {f"step-{newest}/rank-{rank}-of-{processes}.safetensors" for rank in range(processes)}
    return newest if wanted <= set(names) else None


@right("whole_checkpoint", "asks for every step, newest first, whether all the names it needs are there")
def _(names, processes):
    there = set(names)
    steps = {name.split("/")[0].removeprefix("step-") for name in there if name.startswith("step-")}
    for step in sorted((step for step in steps if step.isdigit()), key=int, reverse=True):
        if all(f"step-{step}/rank-{rank}-of-{processes}.safetensors" in there for rank in range(processes)):
            return int(step)
    return None
