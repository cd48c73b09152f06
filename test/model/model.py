"""The model test: random sequences of calls in several sessions, against a model.

    model.py DSN SEED FIRST SEQUENCES TRANSACTIONS

Sequences FIRST to FIRST + SEQUENCES - 1 of the seed are played. Each depends on
the seed and its number only, so one that failed can be played alone. Groups of
them share a sink, where each has ids and minutes of its own; in every other
group the worker is at work, in the others the sequences call merge() and
expire() when they want to. Then so many TRANSACTIONS are watched by readers.
The environment's CRASH, if set, is a command that crashes and restarts the server.
"""
import datetime
import os
import random
import subprocess
import sys
import time
import traceback

import psycopg2

from play import Sequence
from session import Log, Mismatch, Session
from state import EPOCH
from watch import watch

MINUTE = datetime.timedelta(minutes=1)
GROUP = 25
SESSIONS = 4

# The kinds of sinks, which come in turns, without the worker and with it. A 'tight'
# sink has a short window, so that events expire in mid-sequence, in calls of expire().
KINDS = (("tight", "error", "totals", "reject", "late"), ("reject", "totals", "error", "late"))


class Sink:
    """A sink as the model knows it."""

    def __init__(self, rng, group, now):
        self.now = now
        self.worker = group % 2 == 1
        self.kind = KINDS[group % 2][group // 2 % len(KINDS[group % 2])]
        self.totals = self.kind == "totals"
        self.tight = self.kind == "tight"
        self.apply_late = self.kind == "late"
        self.reject_bad = self.kind in ("reject", "late") or self.tight and rng.random() < 0.5
        self.writers = rng.random() < 0.6
        self.bucket = rng.choice((MINUTE, datetime.timedelta(seconds=40), MINUTE * (1 if self.totals else 5)))
        self.window = MINUTE * 10 if self.tight else datetime.timedelta(days=1)
        self.retain = self.window + MINUTE * rng.choice((0, 3, 10)) if self.tight and rng.random() < 0.7 else None
        self.spread = MINUTE * 30 if self.tight else MINUTE * rng.choice((1, 3, 8))
        self.step = MINUTE * 60 if self.tight else MINUTE * 10
        self.name = rng.choice(("model_%d", "model's %d", 'Mo"del %d')) % group
        self.fact = rng.choice(("fact_%d", '"model"."Fact %d"')) % group
        self.ingest = rng.choice(("ingest_%d", '"model"."In""gest %d"')) % group
        self.horizon = None
        self.limit = None               # facts of minutes before it are removed

    def base(self, number):
        """Where the minutes of a sequence begin: all of them have passed."""
        hour = self.now.replace(minute=0, second=0, microsecond=0)
        return hour - self.step * (GROUP + 6 - number % GROUP)

    def create(self, admin):
        mode = "totals" if self.totals else "events"
        admin.run("SELECT revenue_sink.create_sink(%s, %s, %s, bucket => %s, dedup_window => %s,"
                  " mode => %s, late_policy => %s, on_bad_event => %s, retain => %s)",
                  [self.name, self.fact, self.ingest, self.bucket, self.window, mode,
                   "apply" if self.apply_late else "reject", "reject" if self.reject_bad else "error", self.retain])
        if not self.totals:
            first = self.base(0) - self.step
            admin.run("SELECT revenue_sink.apply(%s, 'first', '1', %s, 0)", [self.name, first.isoformat()])
            admin.run("SELECT revenue_sink.expire(%s)", [self.name])
            self.read_horizon(admin)
            if self.horizon != first - self.window:
                raise Mismatch("the horizon is %s after a first event of %s" % (self.horizon, first))

    def read_horizon(self, admin):
        """The horizon, and the limit that follows from it."""
        rows = admin.run("SELECT horizon, retained_from FROM revenue_sink.stat_sink WHERE sink = %s"
                         " AND isfinite(horizon)", [self.name])
        self.horizon, limit = rows[0] if rows else (None, None)
        if self.retain is not None and self.horizon is not None:
            self.limit = self.minute(self.horizon - (self.retain - self.window))
        if limit != self.limit:
            raise Mismatch("minutes are kept from %s on, not from %s" % (limit, self.limit))

    def minute(self, time):
        return EPOCH + ((time - EPOCH) // self.bucket) * self.bucket

    def drop(self, admin):
        admin.run("SELECT revenue_sink.drop_sink(%s)", [self.name])


def clean_up(sessions, admin):
    """After a failure: nothing of the sequence may be left open."""
    for s in sessions:
        s.close()
        s.connect()
        s.tx = s.fenced = None
    for gid, in admin.run("SELECT gid FROM pg_prepared_xacts"):
        admin.run("ROLLBACK PREPARED %s", [gid])


def set_worker(admin, on):
    admin.run("ALTER SYSTEM SET revenue_sink.worker_interval = %s", ["100ms" if on else "1h"])
    admin.run("SELECT pg_reload_conf()")


def crash():
    """The caller gives the command, since he knows how the server was started."""
    subprocess.run(["bash", "-c", os.environ["CRASH"]], check=True)


class Run:
    def __init__(self, dsn, seed, stop_after):
        self.seed = seed
        self.stop_after = stop_after
        self.admin = Session(dsn, "admin", Session.PATIENT)
        self.sessions = [Session(dsn, n) for n in range(1, SESSIONS + 1)]
        self.now = datetime.datetime.now(datetime.timezone.utc)
        self.passed = self.failed = 0

    def group(self, group, numbers):
        sink = None
        for number in numbers:
            if self.failed >= self.stop_after:
                break
            rng = random.Random("%s/%s" % (self.seed, number))
            log = self.admin.log = Log()
            try:
                if sink is None:
                    fresh = Sink(random.Random("%s/group %s" % (self.seed, group)), group, self.now)
                    fresh.create(self.admin)
                    sink = fresh
                sequence = Sequence(rng, sink, number, self.sessions, self.admin, log)
                # only where the worker, which starts with a round, is at work anyhow
                crashes = sink.worker and number % GROUP == GROUP // 2 and "CRASH" in os.environ
                sequence.play(rng.randrange(20, 41), crash if crashes else None)
                self.passed += 1
            except (Mismatch, psycopg2.Error) as e:
                self.failed += 1
                self.report(number, log, e)
                clean_up(self.sessions, self.admin)
                self.drop(sink)
                sink = None
        self.drop(sink)

    def drop(self, sink):
        if sink is not None:
            self.admin.log = Log()
            sink.drop(self.admin)

    def report(self, number, log, error):
        print("-- sequence %d of seed %s failed; again: SEED=%s FIRST=%d SEQUENCES=1 test/model/run"
              % (number, self.seed, self.seed, number))
        print("\n".join(log))
        print("-- " + (str(error) if isinstance(error, Mismatch) else traceback.format_exc()), flush=True)


def main():
    dsn, seed = sys.argv[1:3]
    first, count, transactions = map(int, sys.argv[3:])
    stop_after = int(os.environ.get("MAX_FAILURES", "10"))
    run = Run(dsn, seed, stop_after)
    numbers = range(first, first + count)
    groups = sorted({n // GROUP for n in numbers}, key=lambda g: (g % 2, g))
    run.admin.run("CREATE SCHEMA IF NOT EXISTS model")
    worker = None
    started = time.monotonic()
    for group in groups:
        if worker != (group % 2 == 1):
            worker = group % 2 == 1
            set_worker(run.admin, worker)
        run.group(group, [n for n in numbers if n // GROUP == group])
        if run.failed >= stop_after:
            print("-- too many failures: stopping here")
            break
    print("-- %d sequences of seed %s in %.0f s"
          % (run.passed + run.failed, seed, time.monotonic() - started), flush=True)
    if transactions > 0:
        set_worker(run.admin, True)
        passed, failed = watch(dsn, seed, transactions, run.now)
        run.passed += passed
        run.failed += failed
    print("%d passed, %d failed" % (run.passed, run.failed))
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
