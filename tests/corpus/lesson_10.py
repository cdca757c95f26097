"""Answers to lesson 10's exercises that nobody registered, written from the prompts alone."""

import functools
import itertools
import json
import os
import re
import struct
from json import JSONDecodeError

import torch

from corpus import right, wrong

# lora_parameters


@wrong("lora_parameters", "takes every weight as square: twice r times out")
def _(shapes, r):
    return sum(2 * r * out for out, _ in shapes)


@wrong("lora_parameters", "counts weights of equal shape once only")
def _(shapes, r):
    return sum(r * (out + width) for out, width in set(shapes))


@wrong("lora_parameters", "counts a bias of each layer along")
def _(shapes, r):
    return sum(r * width + out * r + out for out, width in shapes)


@wrong("lora_parameters", "rank 8 written into the code, ignores r")
def _(shapes, r):
    return 8 * sum(out + width for out, width in shapes)


@wrong("lora_parameters", "returns inside the loop: counts the first weight only")
def _(shapes, r):
    total = 0
    for out, width in shapes:
        total += r * (out + width)
        return total
    return total


@wrong("lora_parameters", "adds an r x r matrix between A and B")
def _(shapes, r):
    return sum(r * width + r * r + out * r for out, width in shapes)


@wrong("lora_parameters", "missing brackets: r times out, plus in")
def _(shapes, r):
    return sum(r * out + width for out, width in shapes)  # right for r = 1


@wrong("lora_parameters", "counts A alone")
def _(shapes, r):
    return sum(r * width for _, width in shapes)


@right("lora_parameters", "adds up all sides, multiplies once")
def _(shapes, r):
    return r * sum(itertools.chain.from_iterable(shapes))


@right("lora_parameters", "counts the elements of tensors on the meta device")
def _(shapes, r):
    total = 0
    for out, width in shapes:
        total += torch.empty(r, width, device="meta").numel() + torch.empty(out, r, device="meta").numel()
    return total


@right("lora_parameters", "functools.reduce with a start of zero")
def _(shapes, r):
    return functools.reduce(lambda total, shape: total + shape[0] * r + r * shape[1], shapes, 0)


# choose_precision


@wrong("choose_precision", "greater than (8, 0): the A100 itself gets float16")
def _(capability):
    if capability is None:
        return "float32"
    return "bfloat16" if capability > (8, 0) else "float16"


@wrong("choose_precision", "also wants a minor number above zero: (9, 0) gets float16")
def _(capability):
    if capability is None:
        return "float32"
    major, minor = capability
    return "bfloat16" if major == 8 or major > 8 and minor > 0 else "float16"


@wrong("choose_precision", "compares as strings: '12.0' is less than '8.0'")
def _(capability):
    if capability is None:
        return "float32"
    return "bfloat16" if f"{capability[0]}.{capability[1]}" >= "8.0" else "float16"


@wrong("choose_precision", "knows the examples of the prompt only: (8, 6) gets float16")
def _(capability):
    if not capability:
        return "float32"
    return "bfloat16" if capability in [(8, 0), (9, 0), (12, 0)] else "float16"


@wrong("choose_precision", "adds major and minor: a T4 has 12")
def _(capability):
    if capability is None:
        return "float32"
    return "bfloat16" if sum(capability) >= 8 else "float16"


@wrong("choose_precision", "returns torch dtypes, not strings")
def _(capability):
    if capability is None:
        return torch.float32
    return torch.bfloat16 if capability[0] >= 8 else torch.float16


@wrong("choose_precision", "asks this machine for a GPU and ignores the argument")
def _(capability):
    if not torch.cuda.is_available():
        return "float32"
    return "bfloat16" if torch.cuda.get_device_capability()[0] >= 8 else "float16"


@wrong("choose_precision", "gives GPUs before 7.0 float32")
def _(capability):
    if capability is None or capability[0] < 7:
        return "float32"
    return "bfloat16" if capability >= (8, 0) else "float16"


@right("choose_precision", "a list indexed by a truth value")
def _(capability):
    return ["float16", "bfloat16"][tuple(capability) >= (8,)] if capability else "float32"


@right("choose_precision", "structural pattern matching")
def _(capability):
    match capability:
        case None:
            return "float32"
        case (major, _) if major >= 8:
            return "bfloat16"
        case _:
            return "float16"


@right("choose_precision", "lets the comparison with None fail")
def _(capability):
    try:
        number = 10 * capability[0] + capability[1]
    except TypeError:
        return "float32"
    return "b" * (number >= 80) + "float16"


# mask_labels


@wrong("mask_labels", "counts the prompt from position 0, padding on the left included")
def _(ids, attention_mask, prompt_length):
    return [token if mask and i >= prompt_length else -100
            for i, (token, mask) in enumerate(zip(ids, attention_mask, strict=True))]


@wrong("mask_labels", "keeps the last </s> only, masks those that end earlier answers")
def _(ids, attention_mask, prompt_length):
    real = [i for i, mask in enumerate(attention_mask) if mask]
    answer = set(real[prompt_length:])
    return [-100 if i not in answer or (token == 2 and i != real[-1]) else token for i, token in enumerate(ids)]


@wrong("mask_labels", "masks one token of the answer too many")
def _(ids, attention_mask, prompt_length):
    labels, seen = [], 0
    for token, mask in zip(ids, attention_mask, strict=True):
        labels.append(token if mask and seen > prompt_length else -100)
        seen += mask
    return labels


@wrong("mask_labels", "leaves the padding out: the list gets shorter")
def _(ids, attention_mask, prompt_length):
    real = [token for token, mask in zip(ids, attention_mask, strict=True) if mask]
    return [-100] * prompt_length + real[prompt_length:]


@wrong("mask_labels", "takes the first tokens as the real ones: right for padding on the right only")
def _(ids, attention_mask, prompt_length):
    length = sum(attention_mask)
    answer = ids[prompt_length:length]
    return [-100] * prompt_length + answer + [-100] * (len(ids) - length)


@wrong("mask_labels", "adds all padding to the prompt, that on the right too")
def _(ids, attention_mask, prompt_length):
    start = attention_mask.count(0) + prompt_length
    return [token if mask and i >= start else -100
            for i, (token, mask) in enumerate(zip(ids, attention_mask, strict=True))]


@wrong("mask_labels", "masks the prompt only, padding stays in the labels")
def _(ids, attention_mask, prompt_length):
    start = attention_mask.index(1) + prompt_length
    return [-100] * start + ids[start:]  # right without padding on the right


@wrong("mask_labels", "shifts the labels by one, as the model does itself")
def _(ids, attention_mask, prompt_length):
    labels, seen = [], 0
    for token, mask in zip(ids, attention_mask, strict=True):
        seen += mask
        labels.append(token if mask and seen > prompt_length else -100)
    return labels[1:] + [-100]


@right("mask_labels", "running count of real tokens by itertools.accumulate")
def _(ids, attention_mask, prompt_length):
    counts = itertools.accumulate(attention_mask)
    return [token if mask == 1 and count > prompt_length else -100
            for token, mask, count in zip(ids, attention_mask, counts, strict=True)]


@right("mask_labels", "tensors: cumsum and masked_fill")
def _(ids, attention_mask, prompt_length):
    mask = torch.tensor(attention_mask)
    left_out = (mask == 0) | (mask.cumsum(0) <= prompt_length)
    return torch.tensor(ids).masked_fill(left_out, -100).tolist()


@right("mask_labels", "starts with -100 everywhere and writes the answer's positions")
def _(ids, attention_mask, prompt_length):
    labels = [-100 for _ in ids]
    for i in list(itertools.compress(range(len(ids)), attention_mask))[prompt_length:]:
        labels[i] = ids[i]
    return labels


# share_moved


@wrong("share_moved", "compares with the float32 weights, not with those stored in bf16")
def _(weights, step):
    lowered = (weights.bfloat16() - step).bfloat16()
    return (lowered.float() != weights).float().mean().item()


@wrong("share_moved", "returns the share that stays where it was")
def _(weights, step):
    stored = weights.bfloat16()
    return ((stored.float() - step).bfloat16() == stored).float().mean().item()


@wrong("share_moved", "takes the step off the float32 weights: not stored in bf16 first")
def _(weights, step):
    return ((weights - step).bfloat16() != weights.bfloat16()).float().mean().item()


@wrong("share_moved", "float16 in place of bfloat16")
def _(weights, step):
    stored = weights.half()
    return ((stored.float() - step).half() != stored).float().mean().item()


@wrong("share_moved", "raises the weights: below a power of two the gap is another")
def _(weights, step):
    stored = weights.bfloat16()
    return ((stored.float() + step).bfloat16() != stored).float().mean().item()


@wrong("share_moved", "a formula, step above |w| / 256, in place of the gap between numbers")
def _(weights, step):
    return (step > weights.abs() * 2**-8).float().mean().item()


@wrong("share_moved", "divides by the number of rows, not of weights")
def _(weights, step):
    stored = weights.bfloat16()
    moved = (stored.float() - step).bfloat16() != stored
    return moved.sum().item() / len(weights)  # right for one dimension


@wrong("share_moved", "lowers by a share of each weight, not by the step itself")
def _(weights, step):
    stored = weights.bfloat16().float()
    return ((stored - step * stored).bfloat16() != stored.bfloat16()).float().mean().item()


@right("share_moved", "counts unequal entries of Python lists")
def _(weights, step):
    before = weights.to(torch.bfloat16).flatten()
    after = (before.to(torch.float32) - step).to(torch.bfloat16)
    pairs = list(zip(before.tolist(), after.tolist(), strict=True))
    return sum(a != b for a, b in pairs) / len(pairs)


@right("share_moved", "lowers in place in a bf16 copy, one minus the share that is equal")
def _(weights, step):
    stored = weights.to(torch.bfloat16, copy=True)
    lowered = stored.clone().sub_(step)
    return 1 - torch.eq(lowered, stored).sum().item() / stored.numel()


def to_bf16(value):
    """A float32 number rounded to bf16, to even, in its bits."""
    bits = struct.unpack("<I", struct.pack("<f", value))[0]
    return struct.unpack("<f", struct.pack("<I", (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000))[0]


@right("share_moved", "rounds to bf16 by hand in the bits, number by number")
def _(weights, step):
    stored = [to_bf16(value) for value in weights.flatten().tolist()]
    moved = [to_bf16((torch.tensor(value) - step).item()) != value for value in stored]
    return moved.count(True) / len(moved)


# newest_complete_checkpoint


def is_whole(path):
    """Whether the trainer_state.json of a checkpoint's folder is there and valid JSON."""
    try:
        json.loads((path / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return True


@wrong("newest_complete_checkpoint", "sorts the names as strings: 500 comes after 1000")
def _(folder):
    found = [p for p in folder.iterdir() if re.fullmatch(r"checkpoint-\d+", p.name) and is_whole(p)]
    return max(found, key=lambda path: path.name, default=None)


@wrong("newest_complete_checkpoint", "fails on checkpoint-best, whose step is no number")
def _(folder):
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    return next((path for path in found if is_whole(path)), None)


@wrong("newest_complete_checkpoint", "checks the newest only: None if it is broken, though older ones are whole")
def _(folder):
    found = [path for path in folder.iterdir() if re.search(r"^checkpoint-(\d+)$", path.name)]
    newest = max(found, key=lambda path: int(path.name.split("-")[1]), default=None)
    return newest if newest is not None and is_whole(newest) else None


@wrong("newest_complete_checkpoint", "takes the latest by time of change, not by step")
def _(folder):
    found = [p for p in folder.iterdir() if re.fullmatch(r"checkpoint-\d+", p.name) and is_whole(p)]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


@wrong("newest_complete_checkpoint", "pattern without ends: takes checkpoint-800-old and tmp-checkpoint-7000 too")
def _(folder):
    found = {}
    for path in folder.iterdir():
        match = re.search(r"checkpoint-(\d+)", path.name)
        if match and is_whole(path):
            found[int(match[1])] = path
    return found[max(found)] if found else None


@wrong("newest_complete_checkpoint", "is content with a file that is not empty, though cut short")
def _(folder):
    found = [path for path in folder.iterdir() if re.fullmatch(r"checkpoint-\d+", path.name)]
    for path in sorted(found, key=lambda path: int(path.name[11:]), reverse=True):
        state = path / "trainer_state.json"
        if state.is_file() and state.stat().st_size > 0:
            return path
    return None


@wrong("newest_complete_checkpoint", "max() of nothing fails where no checkpoint is whole")
def _(folder):
    found = [p for p in folder.iterdir() if re.fullmatch(r"checkpoint-\d+", p.name) and is_whole(p)]
    return max(found, key=lambda path: int(path.name.split("-")[1]))


@wrong("newest_complete_checkpoint", "fails on a file cut inside a character: UnicodeDecodeError not caught")
def _(folder):
    found = [path for path in folder.iterdir() if re.fullmatch(r"checkpoint-\d+", path.name)]
    for path in sorted(found, key=lambda path: -int(path.name.split("-")[1])):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            return path
        except (OSError, JSONDecodeError):
            continue
    return None


@right("newest_complete_checkpoint", "removes the newest from the list until one can be read")
def _(folder):
    found = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()]
    found.sort(key=lambda path: int(path.name.removeprefix("checkpoint-")))
    while found and not is_whole(found[-1]):
        found.pop()
    return found[-1] if found else None


@right("newest_complete_checkpoint", "os.listdir and a running best, json.load from bytes")
def _(folder):
    best, best_step = None, -1
    for name in os.listdir(folder):
        match = re.match(r"checkpoint-(\d+)\Z", name)
        try:
            if match and int(match[1]) > best_step:
                with open(os.path.join(folder, name, "trainer_state.json"), "rb") as file:
                    json.load(file)
                best, best_step = folder / name, int(match[1])
        except (OSError, ValueError):
            continue
    return best


@right("newest_complete_checkpoint", "starts from the state files, a dict from step to folder")
def _(folder):
    whole = {}
    for state in folder.glob("*/trainer_state.json"):
        kind, _, step = state.parent.name.partition("-")
        if kind == "checkpoint" and re.fullmatch("[0-9]+", step) and is_whole(state.parent):
            whole[int(step)] = state.parent
    return whole.get(max(whole, default=None))
