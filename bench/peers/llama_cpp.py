"""Times greedy decoding of a GGUF file in llama.cpp: `python llama_cpp.py FILE [TOKENS [THREADS]]`; needs xllamacpp.

The prompt has the 44 ids of `bench -- generate`. Two runs differ in the tokens they make; what the longer one takes more is
the time of these.
"""

import json
import os
import resource
import sys
import time

import xllamacpp

path, tokens, threads = sys.argv[1], int((sys.argv[2:3] or ["128"])[0]), int((sys.argv[3:4] or ["2"])[0])
params = xllamacpp.CommonParams()
params.model.path = path
params.n_ctx = 1024
params.n_parallel = 1
params.cpuparams.n_threads = threads
params.cpuparams_batch.n_threads = threads
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
server = xllamacpp.Server(params)
vocabulary = 49152
prompt = [3 + t * 7919 % (vocabulary - 3) for t in range(44)]


def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), usage.ru_utime + usage.ru_stime


def made(count):
    before = used()
    request = {"prompt": prompt, "n_predict": count, "temperature": 0, "cache_prompt": False, "ignore_eos": True}
    server.handle_completions(request)
    return [after - start for after, start in zip(used(), before)]


made(8)
first = made(1)
rest = [long - short for long, short in zip(made(tokens + 1), first)]
figures = {
    "bench": "llama.cpp",
    "model": path,
    "threads": threads,
    "promptSeconds": first[0],
    "newTokens": tokens,
    "tokensPerSecond": tokens / rest[0],
    "cpuSecondsPerToken": rest[1] / tokens,
    "peakMB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
}
print(json.dumps(figures), flush=True)
# The server's threads do not end by themselves.
os._exit(0)
