"""What a seed decides: the job, its incarnations, and the faults that these meet.

The same seed gives the same plan. When exactly the scheduler lets each process
do what is planned, no seed can say.
"""

import random

from log import BASE, GROUPS, HOUR, MINUTE, Log

# who comes to which steps, and up to which time it makes sense to wait for
COORDINATOR = {"restored": 1, "write": 4, "synced": 4, "written": 4, "recover": 1, "recovered": 1,
               "barrier": 6, "complete": 5, "end": 1}
COORDINATOR_ONE = {"offsets": 1}
COORDINATOR_TWO = {"commit": 4, "committed": 4}
SUBTASK = {"begin": 6, "begun": 6, "apply": 9, "applied": 9, "acknowledged": 5}
SUBTASK_ONE = {"store": 5, "stored": 5, "commit": 6, "committed": 6}
SUBTASK_TWO = {"pre_commit": 6, "prepare": 6, "prepared": 6}

# a later incarnation can't tell these from a successor's, unless by an epoch of their own
# (at "recovered" its subtasks may still have to open their writers)
OPENING = ("restored", "write", "synced", "written", "recover", "recovered", "open", "opened")

SERVER_FAULTS = ("backend killed",) * 4 + ("backend terminated",) * 4 + ("worker killed",) * 2 + \
    ("worker terminated",) * 2 + ("server killed",) * 4 + ("server stopped immediately",) * 3


class Fault:
    def __init__(self, who, step, nth, what, then=None, at_once=False):
        self.who, self.step, self.nth, self.what = who, step, nth, what
        self.then = then  # what the driver does while the process is halted
        self.at_once = at_once  # whether the process goes on first

    def spec(self):
        return "fault=%s:%s:%d:%s" % (self.who, self.step, self.nth, self.what)


class Plan:
    def __init__(self, seed):
        rng = self.rng = random.Random(seed)
        self.seed = seed
        self.promotion = {5: "sync", 11: "async"}.get(seed % 12)
        self.two_phase = rng.random() < 0.65
        self.totals = rng.random() < 0.2
        self.keyed = self.totals or rng.random() < 0.5
        self.moving = not self.totals and rng.random() < 0.35
        self.own_epoch = rng.random() < 0.5
        self.common = {
            "two_phase": self.two_phase, "totals": self.totals, "keyed": self.keyed,
            "versions": rng.random() < 0.5,
            "inflight": rng.randint(1, 3), "hold": rng.randint(0, 3) if self.two_phase else 0,
            "gids": self.promotion == "async" or rng.random() < 0.5,
            "store": rng.random() < 0.7, "input_ends": rng.random() < 0.3,
            "failover_loses": self.promotion == "async", "oldest": BASE - HOUR,
        }
        self.make_log()
        self.faulty = [self.make_faults() for _ in range(rng.randint(1, 4))]
        if self.promotion:
            failover = self.failover()
            taken = {(f.who, f.step) for f in failover}
            self.faulty[0] = failover + [f for f in self.faulty[0] if (f.who, f.step) not in taken][:1]
        if any(f.what == "stop" and f.step in OPENING for faults in self.faulty for f in faults):
            self.own_epoch = True
        self.common["own_epoch"] = self.own_epoch
        self.cuts = [self.make_cut() for _ in range(rng.choice((0, 1, 2, 3, 5)))]

    def make_log(self):
        rng = self.rng
        length = rng.randrange(250, 800)
        span, jitter, groups = 10 * MINUTE, 5 * MINUTE, GROUPS[:rng.randint(1, len(GROUPS))]
        self.max_step = length // rng.randint(5, 12)
        self.window = "1 day"
        if self.moving:
            # a window as narrow as can be: what one subtask is ahead of another must fit
            span, jitter = 8 * HOUR, 10 * MINUTE
            self.max_step = length // 24
            ahead = (self.common["inflight"] + self.common["hold"] + 2) * self.max_step
            self.window = "%d seconds" % ((span * ahead // length + 2 * jitter) // 1000000)
        self.log = Log(rng, rng.randint(1, 4), length, span, jitter, groups)

    def incarnation(self, n):
        """Settings and faults of the n-th incarnation."""
        rng = self.rng
        settings = dict(self.common)
        settings.update({
            "parallel": rng.randint(1, 4),
            "step": rng.randint(max(self.max_step // 2, 1), self.max_step),
            "chunk": rng.choice((7, 50, 1000)), "copy": rng.random() < 0.3,
            "open_writers": rng.random() < 0.4,
            "subtasks_finish": self.promotion != "async" and rng.random() < 0.4,
            "ask_outcome": rng.random() < 0.5,
            "restarts": rng.random() < 0.3 or (self.promotion == "async" and not self.two_phase),
        })
        faults = self.faulty[n] if n < len(self.faulty) else []
        if any(fault.what == "stop" and fault.who == "coordinator" for fault in faults):
            settings["subtasks_finish"] = rng.random() < 0.7
        if n > 0 and self.promotion != "async" and rng.random() < 0.15:
            settings["older"] = rng.randint(1, 3)
        if n > 0 and rng.random() < 0.3:
            settings["rewind"] = rng.randint(1, self.max_step)
        return settings, faults

    def place(self):
        """A fault: who, at which step, at which of his visits there."""
        rng = self.rng
        if rng.random() < 0.35:
            steps = dict(COORDINATOR, **(COORDINATOR_TWO if self.two_phase else COORDINATOR_ONE))
            who = "coordinator"
        else:
            steps = dict(SUBTASK, **(SUBTASK_TWO if self.two_phase else SUBTASK_ONE))
            steps["open"] = steps["opened"] = 1
            if self.two_phase:
                steps["finish"] = steps["finished"] = 4
            who = "subtask%d" % rng.choice((0, 0, 0, 1))
        step = rng.choice(sorted(steps))
        return who, step, rng.randint(1, steps[step])

    def make_faults(self):
        rng = self.rng
        faults = {}
        for _ in range(rng.choice((1, 1, 2, 3))):
            what = rng.choice(("kill",) * 4 + ("stop",) * 2 + ("hold",) * 4)
            if what == "stop" and (self.promotion == "async" or any(f.what == "stop" for f in faults.values())):
                what = "kill"
            then = rng.choice(SERVER_FAULTS) if what == "hold" else None
            who, step, nth = self.place()
            if what == "stop" and self.two_phase and rng.random() < 0.6:
                # one that wakes up to finish what its successor has rolled back
                who, step, nth = "coordinator", rng.choice(("complete", "write", "synced")), rng.randint(2, 4)
            faults[who, step] = Fault(who, step, nth, what, then, rng.random() < 0.5)
        return list(faults.values())

    def failover(self):
        """Before it, where that is allowed to lose something, the standby hears nothing more."""
        rng = self.rng
        steps = sorted(SUBTASK_TWO if self.two_phase else SUBTASK_ONE) + ["begin", "applied"]
        first = rng.randint(1, 3)
        # a job that ends before what it was told is lost can't notice it: so the promotion is waited for
        faults = [Fault("subtask0", rng.choice(steps), first + rng.randint(1, 3), "hold", "promotion",
                        self.promotion == "sync" and rng.random() < 0.5)]
        if self.promotion == "async":
            steps.remove(faults[0].step)
            faults.insert(0, Fault("subtask0", rng.choice(steps), first, "hold", "standby cut off"))
        return faults

    def make_cut(self):
        rng = self.rng
        texts = ["begin_batch", "store_offsets", "recover", "open_writer"]
        texts += ["upsert"] if self.totals else ["revenue_sink.apply", "COPY"]
        if self.two_phase:
            texts += ["pre_commit", "PREPARE TRANSACTION", "commit_checkpoint", "commit_prepared"]
            texts += ["PREPARE TRANSACTION", "commit_checkpoint", "outcome"]
        else:
            texts += ["COMMIT", "COMMIT", "COMMIT", "offsets("]
        text = rng.choice(texts)
        nth = 1 if text in ("recover", "open_writer", "outcome") else rng.randint(1, 6)
        return "cut %s %d %s" % (rng.choice(("request", "answer", "answer", "midway", "linger")), nth, text)
