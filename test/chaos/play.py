"""Plays one seed: the job, all its incarnations, the faults; then checks the outcome."""

import collections
import os
import queue
import shutil
import signal
import subprocess
import threading
import time

from log import BASE, HOUR
from plan import Plan
from server import PATIENCE, kill_process, wait_until

EXIT_DONE, EXIT_RESTART, EXIT_FENCED = 0, 3, 4
MAX_INCARNATIONS = 30
RUN_LIMIT = 150  # seconds


class Wrong(Exception):
    """The run has failed already."""


class Incarnation:
    """A processor: coordinator and subtasks. All of its ends are told to the queue."""

    def __init__(self, run, number, command, settings, faults):
        self.number, self.settings, self.faults = number, settings, list(faults)
        self.command = command
        self.prepared = {}  # number of the batch: gids
        self.checkpoints, self.finished = [], []
        self.restored = None  # number of the checkpoint; 0 for none
        self.running = False
        self.stopped = None  # (who, step, pid) of a process that is halted, to become a zombie
        self.resumed = False
        self.zombie_numbers = set()
        self.skipped = set()  # who, number: ended before, the answer was lost
        self.tail = collections.deque(maxlen=40)
        self.code = None
        self.over = threading.Event()  # set when nobody has the processor's stdout any more
        self.errors = open("%s/errors.%d" % (run.dir, number), "w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.errors, start_new_session=True)
        threading.Thread(target=self.listen, args=(run.queue,), daemon=True).start()
        threading.Thread(target=self.wait, args=(run.queue,), daemon=True).start()

    def listen(self, to):
        for line in self.process.stdout:
            to.put((self, line.decode().split()))
        self.over.set()
        to.put((self, ["", "over"]))

    def wait(self, to):
        code = self.process.wait()
        to.put((self, ["", "exit", str(code)]))

    def go(self):
        try:
            self.process.stdin.write(b"g")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass

    def error_text(self):
        self.errors.seek(0)
        return self.errors.read().strip()


class Run:
    def __init__(self, seed, server, programs, directory):
        self.plan = Plan(seed)
        self.server, self.programs, self.dir = server, programs, directory
        self.sink, self.fact, self.ingest = "sink%d" % seed, "fact%d" % seed, "ingest%d" % seed
        self.queue = queue.Queue()
        self.incarnations = []
        self.count = collections.Counter()
        self.faults = collections.Counter()
        self.problems = []
        self.forgiven = False
        self.proxy = None

    # The setting of the play.

    def set_up(self):
        for name in ("log", "state"):
            os.makedirs(self.dir + "/" + name)
        self.plan.log.write(self.dir + "/log")
        mode = "totals" if self.plan.totals else "events"
        self.server.run("SELECT revenue_sink.create_sink(%s, %s, %s, mode => %s, dedup_window => %s)",
                        self.sink, self.fact, self.ingest, mode, self.plan.window)
        self.truth = self.plan.log.truth()
        if not self.plan.totals:
            # an event before all others sets the horizon, so that what is late is late from the start
            self.server.run("SELECT revenue_sink.apply(%s, 'first', 'first', to_timestamp(%s), 1, 'first')",
                            self.sink, (BASE - HOUR) // 1000000)
            self.server.run("SELECT revenue_sink.expire(%s)", self.sink)
            self.truth[((BASE - HOUR) // 1000000, "first")] = (100, 1)
        if self.plan.promotion:
            self.server.add_standby(self.plan.promotion == "sync")
        self.proxy = subprocess.Popen([self.programs + "/proxy", self.dir + "/.s.PGSQL.1", self.server.socket()],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for cut in self.plan.cuts:
            self.tell_proxy(cut)
        threading.Thread(target=self.listen_to_proxy, daemon=True).start()
        wait_until("the proxy listens", lambda: os.path.exists(self.dir + "/.s.PGSQL.1"))

    def tell_proxy(self, line):
        self.proxy.stdin.write(line.encode() + b"\n")
        self.proxy.stdin.flush()

    def listen_to_proxy(self):
        for line in self.proxy.stdout:
            self.queue.put((None, line.decode().split()))

    def start(self):
        settings, faults = self.plan.incarnation(len(self.incarnations))
        command = [self.programs + "/processor", "log=%s/log" % self.dir, "state=%s/state" % self.dir,
                   "sink=" + self.sink, "ingest=" + self.ingest,
                   "conninfo=host=%s port=1 user=postgres dbname=chaos application_name=processor"
                   " options='-c lock_timeout=5s'" % self.dir]
        command += ["%s=%d" % (name, value) for name, value in settings.items()]
        command += [fault.spec() for fault in faults]
        self.incarnations.append(Incarnation(self, len(self.incarnations), command, settings, faults))

    # The course of the play.

    def play(self):
        end = time.monotonic() + RUN_LIMIT
        self.start()
        while True:
            try:
                who, words = self.queue.get(timeout=max(end - time.monotonic(), 0.01))
            except queue.Empty:
                raise Wrong("the job doesn't end") from None
            if who is None:
                if words[0] == "cut":
                    self.faults["connection lost (%s)" % words[1]] += 1
                continue
            living = who is self.incarnations[-1]
            self.heard(who, living, words)
            if words[1] == "exit" and self.ended(who, living, int(words[2])):
                return

    def ended(self, who, living, code):
        """True if the job is done."""
        who.code = code
        if not living or who.stopped:
            return False
        if code == EXIT_DONE:
            return True
        if code == EXIT_FENCED and not self.plan.own_epoch and not self.forgiven:
            # without an epoch of its own, a predecessor's last call may come after
            self.forgiven = True
        elif code not in (EXIT_RESTART, -signal.SIGKILL):
            raise Wrong("incarnation %d ended with %d: %s" % (who.number, code, who.error_text()))
        self.restart()
        return False

    def restart(self):
        if len(self.incarnations) == MAX_INCARNATIONS:
            raise Wrong("%d incarnations" % MAX_INCARNATIONS)
        self.start()

    def heard(self, who, living, words):
        what = words[1]
        if what not in ("over", "events"):
            who.tail.append(" ".join(words))
        if what == "events":
            self.count["events"] += int(words[2])
            self.count["duplicates"] += int(words[3])
            self.count["deferred"] += int(words[4])
        elif what == "kill":
            self.faults[words[0].rstrip("0123456789") + " killed"] += 1
        elif what == "stop":
            self.faults[words[0].rstrip("0123456789") + " halted"] += 1
            who.stopped = (words[0], words[2], int(words[3]))
            if living:
                if words[0] != "coordinator":
                    who.process.kill()
                self.restart()
        elif what == "hold":
            self.strike(who, words[0], words[2], int(words[4]))
        elif what == "restored":
            who.restored = int(words[2])
        elif what == "running":
            who.running = True
            # it has opened its writers; what a zombie that goes on says of itself fences nobody
            if living:
                for zombie in self.incarnations:
                    if zombie is not who and zombie.stopped and not zombie.resumed:
                        self.resume(zombie)
        elif what == "skipped":
            who.skipped.add((words[0], words[2]))
        elif what in ("prepared", "committed"):
            self.ended_batch(who, words)
        elif what == "barrier" and who.resumed:
            who.zombie_numbers.add(words[2])
        elif what == "checkpoint":
            # without its gids, the call says nothing of a zombie's own batches
            if not who.resumed or self.plan.common["gids"]:
                who.checkpoints.append(int(words[2]))
        elif what == "finished":
            who.finished.append(words[2])

    def ended_batch(self, who, words):
        if words[1] == "prepared":
            who.prepared.setdefault(int(words[2]), []).append(words[3])
        if not who.resumed or (words[0], words[2]) in who.skipped:
            return
        # nothing that a zombie begins after its successor has opened gets through
        name, step, _ = who.stopped
        before_end = ("restored", "open", "begin", "begun", "apply", "applied", "store", "stored", "pre_commit", "prepare", "commit")
        if words[2] in who.zombie_numbers or (name == words[0] and step in before_end):
            self.problems.append("a zombie, halted at %s, has %s a batch" % (step, words[1]))

    def resume(self, zombie):
        zombie.resumed = True
        try:
            os.kill(zombie.stopped[2], signal.SIGCONT)
        except ProcessLookupError:
            pass

    def strike(self, who, name, step, backend):
        fault = next(f for f in who.faults if f.what == "hold" and (f.who, f.step) == (name, step))
        who.faults.remove(fault)
        if fault.at_once:
            who.go()
        if self.inflict(fault.then, backend):
            self.faults[fault.then] += 1
        if not fault.at_once:
            who.go()

    def inflict(self, kind, backend):
        server = self.server
        if kind == "backend killed":
            return backend > 0 and kill_process(backend)
        if kind == "backend terminated":
            return server.terminate(backend)
        if kind == "worker killed":
            return kill_process(server.worker())
        if kind == "worker terminated":
            return server.terminate(server.worker())
        if kind == "server killed":
            return server.kill()
        if kind == "server stopped immediately":
            return server.stop_immediately()
        if kind == "standby cut off":
            return server.cut_off()
        if kind == "promotion":
            server.promote()
            self.tell_proxy("server " + server.socket())
            return True
        raise ValueError(kind)

    # The outcome.

    def wait_for_all(self):
        """Let the zombies go on until they end."""
        for who in self.incarnations:
            if who.stopped and not who.resumed:
                self.resume(who)
        for who in self.incarnations:
            if not who.over.wait(PATIENCE):
                raise Wrong("processes of incarnation %d don't end" % who.number)
        while not self.queue.empty():
            who, words = self.queue.get()
            if who:
                self.heard(who, False, words)

    def look(self):
        self.wait_for_all()
        server = self.server
        try:
            wait_until("nothing is prepared", lambda: not server.run("SELECT 1 FROM pg_prepared_xacts"), 20)
        except RuntimeError:
            left = server.run("SELECT gid FROM pg_prepared_xacts")
            self.count["left"] = len(left)
            self.problems.append("left behind: %s" % ", ".join(row[0] for row in left[:10]))
        if not self.plan.totals:
            wait_until("nothing is deferred", lambda: server.run("SELECT revenue_sink.merge(%s)", self.sink) and
                       not server.run("SELECT 1 FROM revenue_sink.deferred WHERE sink = %s", self.sink))
        self.look_at_totals()
        for row in server.run('SELECT problem FROM revenue_sink."check"(%s)', self.sink):
            self.problems.append("check: " + row[0])
        self.look_at_rejected()
        self.look_at_offsets()
        self.look_at_outcomes()

    def look_at_totals(self):
        found = {(int(minute), group): (int(cents), events) for minute, group, cents, events in self.server.run(
            "SELECT extract(epoch FROM minute)::bigint, group_key, revenue * 100, events FROM %s" % self.fact)}
        wanted = self.truth
        if self.plan.totals:
            wanted = {key: (cents, None) for key, (cents, _) in wanted.items()}
        for key in sorted(set(found) | set(wanted)):
            if found.get(key) != wanted.get(key):
                self.count["wrong"] += 1
                self.problems.append("minute %d, group \"%s\": %s instead of %s" %
                                     (*key, found.get(key), wanted.get(key)))

    def look_at_rejected(self):
        found = self.server.run("SELECT reason, order_id, event_id FROM revenue_sink.dead_letter WHERE sink = %s",
                                self.sink)
        late = {row[1:] for row in found if row[0] == "late"}
        conflicts = {row[1:] for row in found if row[0] == "conflict"}
        others = [row for row in found if row[0] not in ("late", "conflict")]
        log = self.plan.log
        want_late, want_conflicts = (set(), set()) if self.plan.totals else (log.late, log.conflicts)
        if self.plan.moving:
            # an event that comes again after it has left the window is late, too
            known = {event[:2] for event in log.events}
            late = {key for key in late if key not in known}
            want_conflicts = conflicts = want_conflicts if conflicts <= want_conflicts else want_conflicts
        if late != want_late or conflicts != want_conflicts or others:
            self.problems.append("rejected events: late %s, conflicts %s, others %s" %
                                 (sorted(late ^ want_late)[:5], sorted(conflicts ^ want_conflicts)[:5], others[:5]))

    def look_at_offsets(self):
        if self.plan.two_phase and not self.plan.common["store"]:
            return
        found = {(source, partition): offset for source, partition, offset in self.server.run(
            "SELECT source, partition, next_offset FROM revenue_sink.offsets(%s)", self.sink)}
        sources = ["log of keys %d" % n for n in range(8)] if self.plan.keyed else ["log"]
        wanted = {(source, partition): length for source in sources
                  for partition, length in enumerate(self.plan.log.lengths)}
        if found != wanted:
            self.problems.append("offsets %s instead of %s" % (found, wanted))

    def successors_restored(self, who):
        """The checkpoint from which the job went on after an incarnation; None if that isn't one."""
        later = []
        for successor in self.incarnations[who.number + 1:]:
            later.append(successor)
            if successor.running:
                break
        if not later or not later[-1].running or any(
                i.restored != later[0].restored or "older" in i.settings for i in later):
            return None
        return later[0].restored

    def look_at_outcomes(self):
        """Batches reported as committed must be; those that nobody restored must not be."""
        committed = set()
        rolled_back = set()
        gids = set()
        # one that doesn't say whose batches it means may mean others'
        unsure = any(who.stopped and who.stopped[0] == "coordinator" for who in self.incarnations) and \
            not self.plan.common["gids"]
        for who in self.incarnations:
            committed.update(who.finished)
            restored = self.successors_restored(who)
            for number, batches in who.prepared.items():
                gids.update(batches)
                if any(number <= n for n in who.checkpoints) or (restored is not None and number <= restored):
                    committed.update(batches)
                elif restored is not None and not unsure:
                    rolled_back.update(batches)
        rolled_back -= committed
        for gid in sorted(gids):
            outcome = self.server.run("SELECT revenue_sink.outcome(%s)", gid)[0][0]
            if self.plan.promotion == "async":
                right = outcome in ("committed", "rolled back", "unknown")
            elif gid in committed:
                right = outcome == "committed"
            elif gid in rolled_back:
                right = outcome == "rolled back"
            else:
                right = outcome in ("committed", "rolled back")
            if not right:
                self.problems.append("%s: %s%s" % (gid, outcome, " instead of committed" if gid in committed else
                                                   " instead of rolled back" if gid in rolled_back else ""))

    def end_processes(self):
        for who in self.incarnations:
            try:
                os.killpg(who.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            who.errors.close()
        if self.proxy:
            self.proxy.kill()
            self.proxy.wait()

    def clean_up(self):
        if not self.problems:
            self.server.drop_standby()
            self.server.run("SELECT revenue_sink.drop_sink(%s)", self.sink)

    def story(self):
        """A report for a person who must find out what went wrong."""
        lines = []
        for who in self.incarnations:
            lines.append("incarnation %d, exit %s: %s" % (who.number, who.code, " ".join(
                word for word in who.command[6:])))
            lines += ["    " + line for line in list(who.tail)[-12:]]
            if who.error_text():
                lines.append("    stderr: " + who.error_text())
        return lines


def play(seed, server, programs, directory):
    """A dictionary with everything that there is to know about a run."""
    started = time.monotonic()
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    run = Run(seed, server, programs, directory)
    story = []
    try:
        try:
            run.set_up()
            run.play()
            run.look()
        except (Wrong, RuntimeError) as problem:
            run.problems.append(str(problem))
        if run.problems:
            story = run.story()
    finally:
        run.end_processes()
    run.clean_up()
    return {"seed": seed, "problems": run.problems, "story": story, "faults": run.faults,
            "count": run.count, "incarnations": len(run.incarnations),
            "seconds": time.monotonic() - started}
