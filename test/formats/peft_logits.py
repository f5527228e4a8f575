"""Logits of models with adapters by PEFT: `python peft_logits.py FOLDER`, whose `cases.json` lists what to compute.

Each case has a model folder, an adapter that Tributary wrote (`written`), the options of an adapter that PEFT is to write
(`saved`), and ids. `answers.json` gets the logits with the one and with the other.
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

folder = Path(sys.argv[1])
kinds = {"CAUSAL_LM": AutoModelForCausalLM, "SEQ_CLS": AutoModelForSequenceClassification}


def logits(model, ids):
    with torch.no_grad():
        return model.eval()(torch.tensor(ids)).logits.flatten().tolist()


answers = []
torch.manual_seed(3)
for case in json.loads((folder / "cases.json").read_text()):
    kind = kinds[case["task"]]

    def base():
        return kind.from_pretrained(folder / case["model"], dtype=torch.float32)

    written = logits(PeftModel.from_pretrained(base(), folder / case["written"]), case["ids"])
    config = LoraConfig(task_type=case["task"], **case["options"])
    model = get_peft_model(base(), config)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder / case["saved"])
    answers.append({"written": written, "saved": logits(model, case["ids"]), "plain": logits(base(), case["ids"])})
(folder / "answers.json").write_text(json.dumps(answers))
