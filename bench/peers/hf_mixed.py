"""One pass of LoRA training with transformers and PEFT over real examples of mixed lengths: the peer of `bench -- mixed`.

usage: python hf_mixed.py MODEL DATA [--examples N] [--batch B] [--max-length T] [--dtype float32|bfloat16]

Batches are random and padded to their longest row, as transformers' Trainer does by default. One step of the longest
examples comes first and is not counted. Prints one JSON line. Threads: OMP_NUM_THREADS, else 2.
needs: torch, transformers, peft
"""
import argparse
import gzip
import json
import os
import random
import resource
import time

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()


def records(path, count):
    opener = gzip.open if path.endswith(".gz") else open
    found = []
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            if "question" not in line or line.get("answer"):
                found.append(line)
            if len(found) == count:
                break
    return found


def encode(tokenizer, row, max_length):
    if "question" not in row:
        return tokenizer(row["sentence"], truncation=True, max_length=max_length).input_ids, row["label"]
    ask = [{"role": "user", "content": row["question"]}]
    prompt = tokenizer.apply_chat_template(ask, tokenize=False, add_generation_prompt=True)
    answer = [{"role": "assistant", "content": row["answer"]}]
    whole = tokenizer.apply_chat_template(ask + answer, tokenize=False)
    ids = tokenizer(whole).input_ids[:max_length]
    start = len(tokenizer(prompt).input_ids)
    return ids, [-100] * min(start, len(ids)) + ids[start:]


def collate(examples, pad):
    longest = max(len(ids) for ids, _ in examples)
    fill = lambda row, value: row + [value] * (longest - len(row))
    labels = [fill(label, -100) if isinstance(label, list) else label for _, label in examples]
    return {
        "input_ids": torch.tensor([fill(ids, pad) for ids, _ in examples]),
        "attention_mask": torch.tensor([fill([1] * len(ids), 0) for ids, _ in examples]),
        "labels": torch.tensor(labels),
    }


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--examples", type=int, default=640)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    rows = records(args.data, args.examples)
    pairs = "question" in rows[0]
    examples = [encode(tokenizer, row, args.max_length) for row in rows]
    examples = [e for e in examples if not isinstance(e[1], list) or any(x != -100 for x in e[1][1:])]
    dtype = getattr(torch, args.dtype)
    if pairs:
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype)
        config = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    else:
        model = AutoModelForSequenceClassification.from_pretrained(
            args.model, num_labels=2, dtype=dtype, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        config = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=["query", "value"],
                            modules_to_save=["classifier"])
    model = get_peft_model(model, config).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4)
    pad = tokenizer.pad_token_id or 0

    def step(chosen):
        loss = model(**collate(chosen, pad)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    step(sorted(examples, key=lambda e: -len(e[0]))[:args.batch])
    random.Random(1).shuffle(examples)
    start = time.perf_counter()
    losses = [step(examples[k:k + args.batch]) for k in range(0, len(examples), args.batch)]
    seconds = time.perf_counter() - start
    print(json.dumps({"peer": "transformers", "dtype": args.dtype, "examples": len(examples), "batch": args.batch,
                      "maxLength": args.max_length, "seconds": round(seconds, 2),
                      "examplesPerSecond": round(len(examples) / seconds, 2),
                      "losses": [round(losses[0], 4), round(losses[-1], 4)],
                      "peakMB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))


if __name__ == "__main__":
    main()
