"""What llama.cpp makes of GGUF files: `python llama_cpp_answers.py FOLDER`, whose `cases.json` lists what to compute.

A case has a model, perhaps an adapter, and the ids of a prompt. `answers.json` gets the greedy continuation, or the
embedding where the case asks for one. Needs xllamacpp and gguf.
"""

import json
import sys
from pathlib import Path

import gguf
import xllamacpp

folder = Path(sys.argv[1])


def parameters(case):
    params = xllamacpp.CommonParams()
    params.model.path = str(folder / case["model"])
    params.n_ctx = 64
    params.n_parallel = 1
    params.warmup = False
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.cache_type_k = xllamacpp.ggml_type.GGML_TYPE_F32
    params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.embedding = case["embedding"]
    if case.get("adapter"):
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(folder / case["adapter"]), 1.0)]
    return params


answers = []
for case in json.loads((folder / "cases.json").read_text()):
    server = xllamacpp.Server(parameters(case))
    if case["embedding"]:
        reply = server.handle_embeddings({"input": case["prompt"]})
        answer = {"embedding": reply["data"][0]["embedding"]}
    else:
        request = {"prompt": case["prompt"], "n_predict": case["count"], "temperature": 0, "cache_prompt": False}
        answer = {"text": server.handle_completions(request)["choices"][0]["text"]}
    del server
    read = gguf.GGUFReader(folder / case["model"])
    answer["tensors"] = {tensor.name: [int(dim) for dim in tensor.shape] for tensor in read.tensors}
    answers.append(answer)
(folder / "answers.json").write_text(json.dumps(answers))
