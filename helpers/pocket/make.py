"""How the pocket Llama came to be: tokenizer, pre-training, instruction adapter, record. `make pocket` runs it.

    python -m helpers.pocket.make [--seed 0] [--steps 3000] [--out helpers/pocket]

On 2 cores it takes about a quarter of an hour. The seed fixes the weights' start and the order of the documents; the
world is always the same. Another processor rounds differently: there the model knows the same, with other weights.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pathlib
import string
import time
from collections.abc import Callable, Iterator

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from helpers.pocket import world
from helpers.pocket.evaluate import exact_match
from helpers.pocket.measure import measure
from helpers.pocket.train import question_batches, train

VOCABULARY = 768
CONTEXT = 128
BATCH = 32


def train_tokenizer(texts: list[str], vocab_size: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer laid out as Llama-2's: `▁` for a space, `<s>` in front; but with a `<pad>` of its own.

    Every printable ASCII character is a token; anything else becomes `<unk>`.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    alphabet = sorted(set(string.printable) - set(string.whitespace)) + ["▁"]
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=["<unk>", "<s>", "</s>", "<pad>"], initial_alphabet=alphabet,
        show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
                                   pad_token="<pad>", model_max_length=256, padding_side="right",
                                   clean_up_tokenization_spaces=False)


def pocket_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Llama-2's architecture at a seven-thousandth of its size; every width is a multiple of the block size 64."""
    return LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=320, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=256, tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)


def token_rows(texts: Iterator[str], tokenizer: PreTrainedTokenizerFast, rows: int, length: int) -> torch.Tensor:
    """Documents as `<s> … </s>` back to back, cut into rows: int64 (rows, length)."""
    stream: list[int] = []
    while len(stream) < rows * length:
        batch = [text + "</s>" for text in itertools.islice(texts, 2000)]
        for ids in tokenizer(batch)["input_ids"]:
            stream.extend(ids)
    return torch.tensor(stream[:rows * length]).view(rows, length)


def pretrain(model: LlamaForCausalLM, rows: torch.Tensor, batch: int = BATCH, lr: float = 3e-3,
             report: Callable[[str], None] = print, every: int = 100) -> None:
    """One pass over `rows`, int64 (n, length), by the course's training loop; `report` gets a line at times."""
    steps, losses, start = len(rows) // batch, [], time.perf_counter()

    def each(step: int, loss: float) -> None:
        losses.append(loss)
        if step % every == 0:
            report(f"step {step:5d}  loss {sum(losses[-every:]) / every:.4f}  {time.perf_counter() - start:6.0f} s")

    train(model, ((ids, ids) for ids in rows[:steps * batch].split(batch)), lr, steps, warmup=min(100, 1 + steps // 10),
          floor=0.05, weight_decay=0.1, betas=(0.9, 0.95), each=each)


def tune(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: list[dict[str, str]], steps: int = 200,
         lr: float = 5e-3) -> PeftModel:
    """A LoRA adapter (r 8, α 16, all linears) that answers questions: `rows` of "prompt" and "completion"."""
    tuned = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    tuned.peft_config["default"].base_model_name_or_path = "pocket"  # not the folder that it was trained in
    train(tuned, question_batches(tokenizer, steps, BATCH, seed=None, rows=rows), lr, steps)
    return tuned


def main() -> None:
    """Build tokenizer, model and adapter from the seed, measure them, and write everything below --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    people = world.make_world()
    tokenizer = train_tokenizer(list(itertools.islice(world.documents(people.villagers, seed=1), 5000)))
    prose = world.documents(people.villagers, seed=2 + 10 * args.seed)
    rows = token_rows(prose, tokenizer, args.steps * BATCH, CONTEXT)
    model = LlamaForCausalLM(pocket_config(tokenizer))
    print(f"{model.num_parameters():,} parameters, {rows.numel():,} tokens")
    pretrain(model, rows)
    model.save_pretrained(args.out / "weights")
    tokenizer.save_pretrained(args.out / "weights")
    found = measure(model, tokenizer)
    torch.manual_seed(args.seed)
    tuned = tune(model, tokenizer, world.questions(people.taught))
    tuned.save_pretrained(args.out / "adapter")
    (args.out / "adapter" / "README.md").unlink(missing_ok=True)  # PEFT's empty form; the model card is ours
    config = args.out / "adapter" / "adapter_config.json"
    told = {name: value for name, value in json.loads(config.read_text()).items() if value not in (None, False, {}, [])}
    config.write_text(json.dumps(told, indent=1) + "\n")  # an older PEFT warns of a default that it does not know
    found["exact_match"] = {"base": found.pop("exact_match"), "tuned": exact_match(tuned, tokenizer)}
    found["made_with"] = {"seed": args.seed, "steps": args.steps, "torch": torch.__version__}
    (args.out / "record.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
