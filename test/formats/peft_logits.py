"""Logits of models with adapters by PEFT: `python peft_logits.py FOLDER`, whose `cases.json` lists what to compute.

Each case has a model folder, an adapter that Tributary wrote (`written`), the options of an adapter that PEFT is to write
(`saved`), and ids or pixels. `answers.json` gets the logits with the one and with the other.
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForImageClassification, AutoModelForSequenceClassification

folder = Path(sys.argv[1])
kinds = {
    "CAUSAL_LM": AutoModelForCausalLM,
    "SEQ_CLS": AutoModelForSequenceClassification,
    None: AutoModelForImageClassification,
}


def logits(model, case):
    pixels = case.get("pixels")
    inputs = {"input_ids": torch.tensor(case["ids"])} if pixels is None else {"pixel_values": torch.tensor(pixels)}
    with torch.no_grad():
        return model.eval()(**inputs).logits.flatten().tolist()


answers = []
torch.manual_seed(3)
for case in json.loads((folder / "cases.json").read_text()):
    task = case.get("task")
    kind = kinds[task]

    def base():
        return kind.from_pretrained(folder / case["model"], dtype=torch.float32)

    written = logits(PeftModel.from_pretrained(base(), folder / case["written"]), case)
    config = LoraConfig(task_type=task, **case["options"])
    model = get_peft_model(base(), config)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder / case["saved"])
    answers.append({"written": written, "saved": logits(model, case), "plain": logits(base(), case)})
(folder / "answers.json").write_text(json.dumps(answers))
