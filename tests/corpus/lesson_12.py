"""Answers to lesson 12's exercises that nobody registered, written from the prompts alone."""

import re
import statistics

import torch
import torch.nn.functional as F

from corpus import right, wrong

# what_is_missing


@wrong("what_is_missing", "looks for lora in the names of the modules, trained or not")
def _(model, row):
    missing = []
    if not any("lora" in name for name, _ in model.named_modules()):
        missing.append("adapter")
    if any(p.requires_grad for n, p in model.named_parameters() if "lora" not in n):
        missing.append("frozen base")
    if not any(label != -100 for label in row.get("labels", [])):
        missing.append("labels")
    return missing


@wrong("what_is_missing", "returns a comma-separated text")
def _(model, row):
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    missing = [] if any("lora_" in n for n in trained) else ["adapter"]
    missing += ["frozen base"] if any("lora_" not in n for n in trained) else []
    missing += [] if set(row.get("labels", [])) - {-100} else ["labels"]
    return ", ".join(missing)


@wrong("what_is_missing", "row['labels'] raises where there is none")
def _(model, row):
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    missing = [] if any("lora_" in n for n in trained) else ["adapter"]
    missing += ["frozen base"] if any("lora_" not in n for n in trained) else []
    missing += [] if set(row["labels"]) - {-100} else ["labels"]
    return missing


@wrong("what_is_missing", "calls the base frozen if any weight of it is")
def _(model, row):
    missing = []
    weights = dict(model.named_parameters())
    if not any(p.requires_grad for n, p in weights.items() if "lora_" in n):
        missing.append("adapter")
    if all(p.requires_grad for n, p in weights.items() if "lora_" not in n):
        missing.append("frozen base")
    if not set(row.get("labels", [])) - {-100}:
        missing.append("labels")
    return missing


@wrong("what_is_missing", "asks for lora_A only, and takes lora_B for the base")
def _(model, row):
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    missing = [] if any("lora_A" in n for n in trained) else ["adapter"]
    missing += ["frozen base"] if any("lora_A" not in n for n in trained) else []
    missing += [] if set(row.get("labels", [])) - {-100} else ["labels"]
    return missing


@wrong("what_is_missing", "looks at the last label only")
def _(model, row):
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    missing = [] if any("lora_" in n for n in trained) else ["adapter"]
    missing += ["frozen base"] if any("lora_" not in n for n in trained) else []
    missing += ["labels"] if row.get("labels") and row["labels"][-1] == -100 else []
    return missing


@right("what_is_missing", "a table of three tests, by sets")
def _(model, row):
    parts = {"lora_" in n for n, p in model.named_parameters() if p.requires_grad}
    tests = {"adapter": True not in parts, "frozen base": False in parts,
             "labels": not {*row.get("labels", ())} - {-100}}
    return [name for name, lacks in tests.items() if lacks]


@right("what_is_missing", "counts weights")
def _(model, row):
    lora = sum(p.numel() for n, p in model.named_parameters() if p.requires_grad and "lora_" in n)
    other = sum(p.numel() for n, p in model.named_parameters() if p.requires_grad and "lora_" not in n)
    learnt = sum(label != -100 for label in row.get("labels") or [])
    return ["adapter"] * (lora == 0) + ["frozen base"] * (other > 0) + ["labels"] * (learnt == 0)


# mixed_loss


@wrong("mixed_loss", "overwrites the mean of a kind with that of its last row")
def _(losses, kinds, weights):
    means = {kind: row.mean() for row, kind in zip(losses, kinds, strict=True)}
    return sum(weights[k] * m for k, m in means.items()) / sum(weights[k] for k in means)


@wrong("mixed_loss", "a kind that is missing counts as a loss of zero")
def _(losses, kinds, weights):
    total = torch.tensor(0.0)
    for kind, weight in weights.items():
        rows = [row for row, k in zip(losses, kinds, strict=True) if k == kind]
        total += weight * (torch.cat(rows).mean() if rows else 0.0)
    return total / sum(weights.values())


@wrong("mixed_loss", "the squares of the weights")
def _(losses, kinds, weights):
    total, used = torch.tensor(0.0), 0.0
    for kind in set(kinds):
        rows = torch.cat([row for row, k in zip(losses, kinds, strict=True) if k == kind])
        total, used = total + weights[kind] ** 2 * rows.mean(), used + weights[kind] ** 2
    return total / used


@wrong("mixed_loss", "returns a float")
def _(losses, kinds, weights):
    total, used = 0.0, 0.0
    for kind in set(kinds):
        rows = torch.cat([row for row, k in zip(losses, kinds, strict=True) if k == kind])
        total, used = total + weights[kind] * rows.mean().item(), used + weights[kind]
    return total / used


@wrong("mixed_loss", "divides by the weights twice: a mean of the parts on top")
def _(losses, kinds, weights):
    parts = []
    for kind in dict.fromkeys(kinds):
        rows = torch.cat([row for row, k in zip(losses, kinds, strict=True) if k == kind])
        parts.append(weights[kind] * rows.mean())
    return torch.stack(parts).mean() / sum(weights[k] for k in set(kinds))


@wrong("mixed_loss", "the median of a kind's tokens")
def _(losses, kinds, weights):
    total, used = torch.tensor(0.0), 0.0
    for kind in set(kinds):
        rows = torch.cat([row for row, k in zip(losses, kinds, strict=True) if k == kind])
        total, used = total + weights[kind] * rows.median(), used + weights[kind]
    return total / used


@right("mixed_loss", "sums and counts in dictionaries")
def _(losses, kinds, weights):
    sums, counts = {}, {}
    for row, kind in zip(losses, kinds, strict=True):
        sums[kind] = sums.get(kind, 0) + row.sum()
        counts[kind] = counts.get(kind, 0) + row.numel()
    return sum(weights[k] * sums[k] / counts[k] for k in sums) / sum(weights[k] for k in sums)


@right("mixed_loss", "one weight for each token, in float64")
def _(losses, kinds, weights):
    counts = {k: sum(len(r) for r, kk in zip(losses, kinds, strict=True) if kk == k) for k in set(kinds)}
    each = torch.cat([torch.full((len(r),), weights[k] / counts[k]).double()
                      for r, k in zip(losses, kinds, strict=True)])
    return ((torch.cat(losses).double() * each).sum() / sum(weights[k] for k in counts)).float()


# checked_rewards


@wrong("checked_rewards", "takes </s> out wherever it stands")
def _(completions, answers):
    return [1.0 if answer.split() and completion.replace("</s>", " ").split() == answer.split() else 0.0
            for completion, answer in zip(completions, answers, strict=True)]


@wrong("checked_rewards", "the share of words that are right")
def _(completions, answers):
    rewards = []
    for completion, answer in zip(completions, answers, strict=True):
        said, wanted = completion.replace("</s>", "").split(), answer.split()
        hits = sum(a == b for a, b in zip(said, wanted, strict=False))
        rewards.append(hits / len(wanted) if wanted and "</s>" in completion else 0.0)
    return rewards


@wrong("checked_rewards", "skips rows without an answer: the list gets shorter")
def _(completions, answers):
    return [float("</s>" in c and c.split("</s>")[0].split() == a.split())
            for c, a in zip(completions, answers, strict=True) if a.strip()]


@wrong("checked_rewards", "True and False in place of numbers")
def _(completions, answers):
    return [bool(a.strip()) and "</s>" in c and c.split("</s>")[0].split() == a.split()
            for c, a in zip(completions, answers, strict=True)]


@wrong("checked_rewards", "a regular expression in which the full stop means any sign, and more may follow")
def _(completions, answers):
    return [1.0 if a.strip() and re.search(r"\s+".join(a.split()), c) and "</s>" in c else 0.0
            for c, a in zip(completions, answers, strict=True)]


@wrong("checked_rewards", "removes line breaks, not spaces")
def _(completions, answers):
    return [1.0 if a.strip() and c.endswith("</s>") and c[:-4].replace("\n", " ").strip() == a.strip() else 0.0
            for c, a in zip(completions, answers, strict=True)]


@right("checked_rewards", "joined by single spaces")
def _(completions, answers):
    def words(text):
        return " ".join(text.split())
    return [float(bool(words(a)) and "</s>" in c and words(c[:c.index("</s>")]) == words(a))
            for c, a in zip(completions, answers, strict=True)]


@right("checked_rewards", "a full match with escaped words")
def _(completions, answers):
    rewards = []
    for c, a in zip(completions, answers, strict=True):
        pattern = r"\s*" + r"\s+".join(map(re.escape, a.split())) + r"\s*</s>.*"
        rewards.append(1.0 if a.split() and re.fullmatch(pattern, c, re.DOTALL) else 0.0)
    return rewards


# group_advantages


@wrong("group_advantages", "the best of the group in place of its mean")
def _(rewards, group):
    rows = rewards.view(-1, group)
    return ((rows - rows.max(1, keepdim=True).values) / (rows.std(1, keepdim=True) + 1e-4)).flatten()


@wrong("group_advantages", "a row for each group: not flat again")
def _(rewards, group):
    rows = rewards.view(-1, group)
    return (rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + 1e-4)


@wrong("group_advantages", "keepdim forgotten: means are taken across the groups where that fits")
def _(rewards, group):
    rows = rewards.view(-1, group)
    return ((rows - rows.mean(1)) / (rows.std(1) + 1e-4)).flatten()


@wrong("group_advantages", "only the first group is looked at")
def _(rewards, group):
    first = rewards[:group]
    return (rewards - first.mean()) / (first.std() + 1e-4)


@wrong("group_advantages", "scaled to 0 … 1 within the group")
def _(rewards, group):
    rows = rewards.view(-1, group)
    low = rows.min(1, keepdim=True).values
    return ((rows - low) / (rows.max(1, keepdim=True).values - low + 1e-4)).flatten()


@wrong("group_advantages", "1e-2 in place of 1e-4")
def _(rewards, group):
    rows = rewards.view(-1, group)
    return ((rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + 1e-2)).flatten()


@right("group_advantages", "group by group, with the statistics module")
def _(rewards, group):
    out = []
    for start in range(0, len(rewards), group):
        part = rewards[start:start + group].tolist()
        mean, spread = statistics.fmean(part), statistics.stdev(part)
        out += [(r - mean) / (spread + 1e-4) for r in part]
    return torch.tensor(out)


@right("group_advantages", "as TRL does: repeat_interleave")
def _(rewards, group):
    mean = rewards.view(-1, group).mean(1).repeat_interleave(group)
    spread = rewards.view(-1, group).std(1).repeat_interleave(group)
    return (rewards - mean) / (spread + 1e-4)


# ipo_losses


@wrong("ipo_losses", "divides the whole margin by the tokens of both together")
def _(chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, beta):
    margin = ((chosen - ref_chosen) - (rejected - ref_rejected)) / (chosen_tokens + rejected_tokens)
    return (margin - 1 / (2 * beta)) ** 2


@wrong("ipo_losses", "multiplies by the tokens")
def _(chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, beta):
    margin = (chosen - ref_chosen) * chosen_tokens - (rejected - ref_rejected) * rejected_tokens
    return (margin - 1 / (2 * beta)) ** 2


@wrong("ipo_losses", "the mean over the pairs")
def _(chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, beta):
    margin = (chosen - ref_chosen) / chosen_tokens - (rejected - ref_rejected) / rejected_tokens
    return ((margin - 1 / (2 * beta)) ** 2).mean()


@wrong("ipo_losses", "adds the target in place of taking it away")
def _(chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, beta):
    margin = (chosen - ref_chosen) / chosen_tokens - (rejected - ref_rejected) / rejected_tokens
    return (margin + 1 / (2 * beta)) ** 2


@wrong("ipo_losses", "beta times the margin, squared distance to a half")
def _(chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, beta):
    margin = (chosen - ref_chosen) / chosen_tokens - (rejected - ref_rejected) / rejected_tokens
    return (beta * margin - 0.5) ** 2


@wrong("ipo_losses", "adds what the rejected answer gained")
def _(chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, beta):
    margin = (chosen - ref_chosen) / chosen_tokens + (rejected - ref_rejected) / rejected_tokens
    return (margin - 1 / (2 * beta)) ** 2


@right("ipo_losses", "means per token first, then as published")
def _(chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, beta):
    a, b = chosen / chosen_tokens, rejected / rejected_tokens
    ra, rb = ref_chosen / chosen_tokens, ref_rejected / rejected_tokens
    return ((a - b) - (ra - rb) - 0.5 / beta).square()


@right("ipo_losses", "as a squared error to the target")
def _(chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, beta):
    margin = (chosen - ref_chosen) / chosen_tokens - (rejected - ref_rejected) / rejected_tokens
    return F.mse_loss(margin, torch.full_like(margin, 1 / (2 * beta)), reduction="none")
