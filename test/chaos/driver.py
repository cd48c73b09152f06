"""Runs seeds and counts; see test/chaos/run.

	driver.py PROGRAMS WORK FIRST N JOBS FAIL_FAST

Each job is a process of its own with a server of its own, "driver.py work",
which reads seeds and writes what came of them.
"""

import collections
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import traceback

from play import play
from server import Server

TAIL = 25  # lines of the server's log


class Worker:
    """The seeds of one job, one after the other."""

    def __init__(self, programs, directory):
        self.programs, self.directory = programs, directory
        self.server = None

    def discard_server(self):
        # the server's remains must not disturb the next seed
        if self.server:
            self.server.discard()
        self.server = None

    def one_seed(self, seed):
        try:
            if self.server is None:
                self.server = Server(self.directory)
            before = os.path.getsize(self.server.log())
            generation = self.server.dir
            result = play(seed, self.server, self.programs, self.directory + "/run")
            with open(self.server.log(), encoding="utf-8", errors="replace") as file:
                file.seek(before if self.server.dir == generation else 0)
                log = file.read().splitlines()
            crashes = [line for line in log if re.search(r"PANIC|TRAP:|signal (4|6|7|8|11):", line)]
            if crashes:
                result["problems"].append("server: " + crashes[0])
            if result["problems"]:
                result["story"] += ["the server's log ends with"] + ["    " + line for line in log[-TAIL:]]
                self.discard_server()
            return result
        except Exception:  # pylint: disable=broad-except
            # an error of this program is a failure, too
            self.discard_server()
            return {"seed": seed, "problems": [traceback.format_exc()], "story": [], "faults": {}, "count": {},
                    "incarnations": 0, "seconds": 0}


def work(programs, directory):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker = Worker(programs, directory)
    for line in sys.stdin:
        print(json.dumps(worker.one_seed(int(line))), flush=True)
    worker.discard_server()


def results(programs, directory, seeds, jobs):
    """The result of each seed, as they come."""
    choice = selectors.DefaultSelector()
    seeds = iter(seeds)
    workers = []

    def give(worker):
        try:
            worker.stdin.write(b"%d\n" % next(seeds))
            worker.stdin.flush()
        except StopIteration:
            choice.unregister(worker.stdout)
            worker.stdin.close()

    try:
        for job in range(jobs):
            worker = subprocess.Popen([sys.executable, __file__, "work", programs, "%s/%d" % (directory, job)],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            workers.append(worker)
            choice.register(worker.stdout, selectors.EVENT_READ, worker)
            give(worker)
        while choice.get_map():
            for key, _ in choice.select():
                yield json.loads(key.data.stdout.readline())
                give(key.data)
    finally:
        for worker in workers:
            if not worker.stdin.closed:
                worker.terminate()
        for worker in workers:
            worker.wait()


def main():
    programs, directory, first, n, jobs, fail_fast = sys.argv[1:]
    first, n = int(first), int(n)
    faults, count = collections.Counter(), collections.Counter()
    passed = failed = incarnations = 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for result in results(programs, directory, range(first, first + n), int(jobs)):
        faults.update(result["faults"])
        count.update(result["count"])
        incarnations += result["incarnations"]
        if os.environ.get("VERBOSE"):
            print("seed %d: %.1f s, %d incarnations, %s" % (
                result["seed"], result["seconds"], result["incarnations"], result["faults"]), flush=True)
        if not result["problems"]:
            passed += 1
            continue
        failed += 1
        print("seed %d FAILED; again: make chaos SEED=%d N=1" % (result["seed"], result["seed"]))
        for line in result["problems"][:20] + result["story"]:
            print("    " + line)
        sys.stdout.flush()
        if fail_fast == "1":
            break
    print("runs: %d, incarnations of the processor: %d" % (passed + failed, incarnations))
    print("faults injected: %d" % sum(faults.values()))
    for kind in sorted(faults):
        print("    %-28s %d" % (kind, faults[kind]))
    print("events sent: %d" % count["events"])
    print("answered duplicate: %d, deferred: %d" % (count["duplicates"], count["deferred"]))
    print("wrong totals: %d" % count["wrong"])
    print("transactions left behind: %d" % count["left"])
    print("%d passed, %d failed" % (passed, failed), flush=True)
    sys.exit(failed > 0 or passed == 0)


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work(*sys.argv[2:])
    else:
        main()
