"""Rounds of federated averaging without training in a deployed Flower: the peer of `bench -- exchange --flower PYTHON`.

usage: python flower.py --clients N --bytes B --tensors T [--rounds R]

One SuperLink, a SuperNode for each client and the app, all on loopback. Every client adds a number to each value. Prints one
JSON line: seconds from sending a round out to the finished mean (the first round apart), and the SuperLink's largest memory.
needs: flwr 1.41, numpy
"""
import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "exchange"
version = "1.0.0"
description = "An exchange without training"
dependencies = []

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "tributary"

[tool.flwr.app.components]
serverapp = "exchange.coordinator:app"
clientapp = "exchange.silo:app"

[tool.flwr.app.config]
clients = 2
bytes = 1000000
tensors = 1
rounds = 3
times = ""
"""

SILO = """
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    place = int(context.node_config["place"])
    received = message.content["arrays"]
    changed = {name: Array(values.numpy() + np.float32(1 + place)) for name, values in received.items()}
    counts = MetricRecord({"num-examples": 3 + place})
    return Message(content=RecordDict({"arrays": ArrayRecord(changed), "metrics": counts}), reply_to=message)
"""

COORDINATOR = """
import time

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Watched(FedAvg):
    times = ""

    def note(self, what):
        with open(self.times, "a") as file:
            print(what, time.time(), file=file)

    def configure_train(self, server_round, arrays, config, grid):
        self.note("sent")
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        result = super().aggregate_train(server_round, replies)
        self.note("mean")
        return result


@app.main()
def main(grid, context):
    config = context.run_config
    clients, tensors = int(config["clients"]), int(config["tensors"])
    length = int(config["bytes"]) // 4 // tensors
    # Equal arrays would be sent once.
    random = np.random.default_rng(0)
    start = {f"m{i:03d}": Array(random.standard_normal(length, np.float32)) for i in range(tensors)}
    rule = Watched(
        fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients
    )
    rule.times = config["times"]
    rule.start(grid=grid, initial_arrays=ArrayRecord(start), num_rounds=int(config["rounds"]), timeout=600.0)
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(reached, seconds, what):
    end = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > end:
            sys.exit(f"flower.py: waited {seconds} s for {what}")
        time.sleep(0.2)


def answers(url):
    try:
        urllib.request.urlopen(url, timeout=2)
        return True
    except OSError:
        return False


def peak_megabytes(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return None


def main():
    parser = argparse.ArgumentParser()
    for name, usual in (("clients", 10), ("bytes", 16_800_000), ("tensors", 1), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        package = root / "app" / "exchange"
        package.mkdir(parents=True)
        (root / "app" / "pyproject.toml").write_text(PROJECT)
        (package / "__init__.py").write_text("")
        (package / "silo.py").write_text(SILO)
        (package / "coordinator.py").write_text(COORDINATOR)
        port = free_port()
        home = root / "home"
        home.mkdir()
        link = f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        (home / "config.toml").write_text(link)
        env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "FLWR_HOME": str(home),
            # Nothing leaves the machine.
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
        }
        running = []

        def start(name, *command):
            log = open(root / f"{name}.log", "w")
            process = subprocess.Popen(command, env=env, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
            running.append(process)
            return process

        try:
            here = ("--host", "127.0.0.1", "--port")
            server = start(
                "server",
                "flower-superlink", "--insecure", "--disable-runtime-dependency-installation", *here, str(port),
            )
            wait_for(lambda: answers(f"http://127.0.0.1:{port}/health"), 60, "the SuperLink")
            for place in range(asked.clients):
                start(
                    f"node{place}",
                    "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}",
                    *here, str(free_port()), "--node-config", f"place={place}",
                )
            logs = [root / f"node{place}.log" for place in range(asked.clients)]
            wait_for(lambda: all("SuperNode ID" in log.read_text() for log in logs), 120, "the SuperNodes")
            times = root / "times.txt"
            config = " ".join(f"{name}={value}" for name, value in vars(asked).items()) + f" times='{times}'"
            told = start("run", "flwr", "run", str(root / "app"), "here", "--stream", "--run-config", config)
            if told.wait(timeout=1800) != 0 or not times.exists():
                sys.exit((root / "run.log").read_text())
            events = [line.split() for line in times.read_text().splitlines()]
            at = lambda what: [float(time) for name, time in events if name == what]
            rounds = [mean - sent for sent, mean in zip(at("sent"), at("mean"))]
            print(
                json.dumps(
                    {
                        "peer": "flower",
                        "seconds": [round(seconds, 2) for seconds in rounds],
                        "secondsPerRound": round(statistics.median(rounds[1:]), 2),
                        "serverMegabytes": peak_megabytes(server.pid),
                    }
                )
            )
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()


main()
