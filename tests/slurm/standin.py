"""A stand-in for SLURM on one machine: as much of `sbatch`, `srun` and `scontrol` as the job scripts of the guide use.

Called with one of these names and its words. `sbatch` waits until the job is done, and runs the jobs of an array one after another.
Unknown options are refused, so that a script with a mistake fails. `STANDIN` is a folder for its state; `STANDIN_NODES`
holds a command per line by which a process runs on that node, as in a network namespace of its own. When the file `STANDIN_PREEMPT`
is there, tasks of the running step get SIGTERM, once, as on pre-emption.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

STATE = Path(os.environ["STANDIN"])
NODES = [line.split() for line in os.environ["STANDIN_NODES"].splitlines()]
NAMES = os.environ["STANDIN_NAMES"].split()


def job_options() -> argparse.ArgumentParser:
    """What a job may ask for."""
    options = argparse.ArgumentParser("sbatch", allow_abbrev=False)
    options.add_argument("--job-name")
    options.add_argument("--output")
    options.add_argument("--open-mode", choices=["append", "truncate"])
    options.add_argument("--time", type=re.compile(r"(\d+-)?\d\d:\d\d:\d\d").fullmatch)
    options.add_argument("--array", type=re.compile(r"(\d+)-(\d+)").fullmatch)
    for number in ("--nodes", "--ntasks-per-node", "--cpus-per-task", "--gpus-per-task", "--gpus-per-node"):
        options.add_argument(number, type=int)
    options.add_argument("--signal", choices=["TERM@120"])
    options.add_argument("--requeue", action="store_true")
    return options


def sbatch(words: list[str]) -> int:
    """Run a job script, as often as it asks to be queued again."""
    *given, script = words
    lines = re.findall(r"^#SBATCH (.*?)(?:[ \t]+#.*)?$", Path(script).read_text(), re.M)
    asked = [word for line in lines for word in line.split()]
    options = job_options().parse_args([*asked, *given])
    assert options.time, "a job without a time limit"
    nodes = options.nodes or 1
    assert nodes <= len(NODES), "more nodes than there are"
    env = {
        "SLURM_JOB_NODELIST": ",".join(NAMES[:nodes]),
        "SLURM_NNODES": str(nodes),
        "SLURM_CPUS_PER_TASK": str(options.cpus_per_task or 1),
        "SLURM_NTASKS_PER_NODE": str(options.ntasks_per_node or 1),
        "SLURM_NTASKS": str(nodes * (options.ntasks_per_node or 1)),
        "SLURM_JOB_NAME": options.job_name or "job",
    }
    first, last = map(int, options.array.groups()) if options.array else (0, 0)
    codes = []
    for task in range(first, last + 1):
        env["SLURM_JOB_ID"] = str(4000 + task)
        if options.array:
            env |= {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": str(last - first + 1)}
        codes.append(run(script, env, options.requeue, options.signal))
    return max(codes)


def run(script: str, env: dict[str, str], requeue: bool, told: str | None) -> int:
    """Run a job; its exit code at last."""
    again = STATE / f"requeue-{env['SLURM_JOB_ID']}"
    for count in range(10):
        done = subprocess.Popen(["bash", script], env=os.environ | env | {"SLURM_RESTART_COUNT": str(count)})
        if told:
            threading.Thread(target=preempt, daemon=True).start()
        code = done.wait()
        if not again.exists():
            return code
        assert requeue, "a job that may not be queued again"
        again.unlink()
    raise AssertionError("the job is queued again and again")


def preempt() -> None:
    """Send SIGTERM to the step that runs, as soon as that is asked for."""
    asked, step = Path(os.environ.get("STANDIN_PREEMPT", "/nonexistent")), STATE / "step"
    sent = STATE / "preempted"
    while not (asked.exists() and step.exists()) or sent.exists():
        time.sleep(0.01)
    sent.touch()
    os.kill(int(step.read_text()), signal.SIGTERM)


def srun(words: list[str]) -> int:
    """Run a command once per task, or per node where that is asked for; the highest exit code."""
    options = argparse.ArgumentParser("srun", allow_abbrev=False)
    options.add_argument("--ntasks-per-node", type=int, default=int(os.environ["SLURM_NTASKS_PER_NODE"]))
    options.add_argument("command", nargs=argparse.REMAINDER)
    asked = options.parse_args(words)
    nodes, each = int(os.environ["SLURM_NNODES"]), asked.ntasks_per_node
    tasks = []
    for place in range(nodes * each):
        env = {
            "SLURM_PROCID": place,
            "SLURM_LOCALID": place % each,
            "SLURM_NODEID": place // each,
            "SLURM_NTASKS": nodes * each,
        }
        own = os.environ | {name: str(value) for name, value in env.items()}
        tasks.append(subprocess.Popen([*NODES[place // each], *asked.command], env=own))

    def forward(number: int, frame: object) -> None:
        for task in tasks:
            task.send_signal(number)

    signal.signal(signal.SIGTERM, forward)
    (STATE / "step").write_text(str(os.getpid()))
    codes = [task.wait() for task in tasks]
    (STATE / "step").unlink()
    return max(128 - code if code < 0 else code for code in codes)


def scontrol(words: list[str]) -> int:
    """`show hostnames LIST`, and `requeue JOB`."""
    if words[:2] == ["show", "hostnames"]:
        print("\n".join(words[2].split(",")))
    elif words[0] == "requeue":
        (STATE / f"requeue-{words[1]}").touch()
    else:
        raise SystemExit(f"scontrol {words[0]} is not known here")
    return 0


if __name__ == "__main__":
    sys.exit({"sbatch": sbatch, "srun": srun, "scontrol": scontrol}[sys.argv[1]](sys.argv[2:]))
