"""One random sequence: what each session says next, and what must come of it."""
from decimal import Decimal
import datetime

import events
from session import Mismatch, Serialization
from state import (BadEvent, Batch, Deferred, Merge, Model, Offset, Refused, Rejected, STATUSES, Version,
                   key_of)

ISOLATIONS = ["READ COMMITTED"] * 4 + ["REPEATABLE READ"] * 2 + ["SERIALIZABLE"]

# Errors of our own making: bad data, and no internal, lock or connection error.
def is_data_error(code):
    return code is not None and code[:2] in ("22", "23")


def is_refusal(code):
    return code is not None and code[:2] in ("22", "25", "55")


def is_retryable(code):
    return code == "40001"


def is_fenced(code):
    return code == "RS001"


class Sequence:
    def __init__(self, rng, sink, number, sessions, admin, log):
        self.rng = rng
        self.sink = sink
        self.number = number
        self.sessions = sessions
        self.admin = admin
        self.log = log
        self.base = sink.base(number)
        self.model = Model(sink, sink.now)
        self.pool = events.Pool(rng, sink, number, self.base)
        self.prepared = {}              # gid -> Tx
        self.gids = 0
        self.job = "job-%d" % number
        for s in sessions + [admin]:
            s.log = log

    # -- the sequence ------------------------------------------------------

    def play(self, steps, crash=None):
        """crash, if given: called half way, it crashes and restarts the server."""
        for step in range(steps):
            if crash and step == steps // 2:
                self.crash(crash)
                self.settle_now()
            self.step(self.rng.choice(self.sessions))
            if self.sink.worker:
                self.settle_now()
        for s in self.sessions:
            self.finish(s)
        for gid in list(self.prepared):
            self.end_prepared(self.admin, gid)
        self.verify()

    def crash(self, crash):
        """Open transactions are gone, prepared ones stay."""
        for s in self.sessions:
            if s.tx and not s.fenced and self.may_prepare(s.tx) and self.rng.random() < 0.7:
                try:
                    self.prepare(s)
                except Serialization:
                    self.lost(s)
        self.admin.log.say("admin", "-- crash and restart")
        crash()
        for s in self.sessions + [self.admin]:
            s.close()
            s.connect()
            if s.tx is not None and not s.fenced:
                self.model.abort(s.tx)
            s.tx = s.fenced = None

    def step(self, s):
        try:
            if s.fenced:
                self.after_fence(s)
            elif s.tx is None:
                self.pick(s, self.idle_choices(s))
            elif s.tx.failed:
                self.pick(s, [(3, self.rollback)] + [(1, self.commit)]
                          + ([(6, self.rollback_to)] if s.tx.savepoints() else []))
            else:
                self.pick(s, self.tx_choices(s))
        except Serialization:
            self.lost(s)

    def pick(self, s, choices):
        weights = [w for w, _ in choices]
        self.rng.choices([f for _, f in choices], weights)[0](s)

    def idle_choices(self, s):
        write = self.upsert if self.sink.totals else self.apply
        choices = [(10, self.begin), (7, write), (2, self.read), (1, self.store_offsets), (0.3, self.check),
                   (0.1, self.vacuum)]
        if not self.sink.totals:
            choices += [(1, self.seen), (0.7, self.block)]
        if self.prepared:
            choices += [(4, self.finish_prepared)]
        if not self.merging():
            choices += [(1.5, self.merge)]
            if not self.sink.totals:
                choices += [(1.5, self.resolve)]
            if not self.sink.worker:
                choices += [(0.8, self.expire)]
        if self.sink.writers:
            choices += [(1, self.open_writer), (0.3, self.recover)]
        return choices

    def tx_choices(self, s):
        tx = s.tx
        if tx.calls == 0 and self.sink.writers and self.model.writer_epoch and self.rng.random() < 0.6:
            return [(1, self.begin_batch)]
        if tx.has_lost_batch():
            return [(1, self.begin_batch), (1, self.commit), (1, self.rollback), (1, self.commit_remains)]
        write = self.upsert if self.sink.totals else self.apply
        choices = [(9, write), (3, self.read), (2.5, self.savepoint), (3, self.commit), (1.5, self.rollback),
                   (1.5, self.store_offsets), (0.7, self.read_offsets)]
        if not self.sink.totals:
            choices += [(0.5, self.seen), (0.7, self.block), (0.7, self.broken_insert)]
        if tx.savepoints():
            choices += [(3, self.rollback_to), (1.5, self.release)]
        if self.may_prepare(tx):
            choices += [(1.2, self.prepare)]
        if (tx.isolation == "READ COMMITTED" and not self.sink.worker and not self.merging()
                and not tx.batch() and not tx.of(Deferred) and not tx.upserted):
            choices += [(0.4, self.merge)]
        # an older snapshot doesn't see the dead letters that have come since
        if (tx.isolation == "READ COMMITTED" and not self.sink.worker and not self.merging()
                and not tx.batch() and not self.sink.totals):
            choices += [(1.2, self.resolve)]
        return choices

    def merging(self):
        """Has an unfinished transaction called merge() or resolve()?"""
        return any(tx.of(Merge) for tx in self.model.open)

    # -- transaction control -----------------------------------------------

    def begin(self, s):
        isolation = self.rng.choice(ISOLATIONS)
        s.run("BEGIN ISOLATION LEVEL " + isolation)
        s.tx = self.model.begin(isolation)

    def commit(self, s):
        tx = s.tx
        s.run("COMMIT")
        s.tx = None
        tag = "ROLLBACK" if tx.failed else "COMMIT"
        if s.cur.statusmessage != tag:
            raise Mismatch("COMMIT answered %s, not %s" % (s.cur.statusmessage, tag))
        if tx.failed:
            self.model.abort(tx)
        else:
            self.model.commit(tx)

    def rollback(self, s):
        s.run("ROLLBACK")
        self.model.abort(s.tx)
        s.tx = None

    def lost(self, s):
        """A SERIALIZABLE transaction got its 40001."""
        s.send("ROLLBACK")
        self.model.abort(s.tx)
        s.tx = None

    def savepoint(self, s):
        name = "p%d" % len(s.tx.savepoints())
        s.run("SAVEPOINT " + name)
        s.tx.push(name)

    def rollback_to(self, s):
        name = self.rng.choice(s.tx.savepoints())
        s.run("ROLLBACK TO " + name)
        s.tx.rollback_to(name)

    def release(self, s):
        name = self.rng.choice(s.tx.savepoints())
        s.run("RELEASE " + name)
        s.tx.release(name)

    def may_prepare(self, tx):
        return not tx.failed and not tx.batch() and not tx.merged

    def prepare(self, s):
        self.gids += 1
        gid = "foreign %d/%d" % (self.number, self.gids)
        s.run("PREPARE TRANSACTION '%s'" % gid)
        self.model.prepare(s.tx)
        self.prepared[gid] = s.tx
        s.tx = None

    def finish_prepared(self, s):
        self.end_prepared(s, self.rng.choice(sorted(self.prepared)))

    def end_prepared(self, s, gid):
        tx = self.prepared.pop(gid)
        if self.rng.random() < 0.6:
            s.run("COMMIT PREPARED '%s'" % gid)
            self.model.commit(tx)
        else:
            s.run("ROLLBACK PREPARED '%s'" % gid)
            self.model.abort(tx)

    def finish(self, s):
        """End whatever the session still has open."""
        try:
            if s.fenced:
                self.after_fence(s)
            elif s.tx is not None:
                (self.rollback if self.rng.random() < 0.3 else self.commit)(s)
        except Serialization:
            self.lost(s)

    # -- one statement in the session's transaction, or in one of its own ---

    def statement(self, s, sql, params=(), copy=None, error=None, predict=lambda tx: None):
        """
        Let the model predict, run the statement, keep or drop the effects.
        Returns (rows, prediction).
        """
        tx = s.tx or self.model.begin()
        self.model.touch(tx)
        try:
            expected = predict(tx)
        except BadEvent:
            expected, error = None, is_data_error
        except Refused:
            expected, error = None, lambda code: code == "55000"
        rows = s.run(sql, params, copy, error)
        if s.tx is None:
            if rows is None:
                self.model.abort(tx)
            else:
                self.model.commit(tx)
        elif rows is None:
            batch = tx.batch()
            tx.fail()
            if batch and not tx.batch() and not tx.savepoints():    # no batch is left: the model says so
                self.rollback(s)
        return rows, expected

    def same(self, what, got, expected):
        if got != expected:
            raise Mismatch("%s\n    got      %r\n    expected %r" % (what, got, expected))

    # -- events ------------------------------------------------------------

    def some(self):
        dice = self.rng.random()
        n = (1 if dice < 0.35 else self.rng.randrange(2, 8) if dice < 0.9 else
             self.rng.randrange(0, 20) if dice < 0.985 else
             self.rng.randrange(100, 700) if dice < 0.998 else self.rng.randrange(4000, 6000))
        return self.pool.batch(n)

    def apply(self, s):
        batch = self.some()
        kind, sql, params, copy = events.choose(self.rng, self.sink, batch)
        rows, statuses = self.statement(s, sql, params, copy,
                                        predict=lambda tx: self.model.apply(tx, batch))
        if rows is None:
            return
        if kind == "rows":
            self.same("rows taken in", s.cur.rowcount, len(batch))
        elif kind == "status":
            self.same("answer", self.fold(rows[0][0], statuses), statuses[0])
        else:
            expected = [statuses.count(name) for name in STATUSES]
            got = list(rows[0])
            if self.sink.apply_late and got[4] == 0:            # counted, so it may say so
                expected[0], expected[4] = expected[0] + expected[4], 0
            self.same("counts " + ", ".join(STATUSES), got, expected)

    def fold(self, got, statuses):
        return "late" if self.sink.apply_late and statuses[0] == "late" and got == "applied" else got

    def block(self, s):
        """A DO block whose inner block fails after an INSERT and is caught."""
        parts = [self.pool.batch(self.rng.randrange(1, 4), good=True) for _ in range(3)]
        texts = []
        for part in parts:
            _, sql, params, _ = events.by_insert(self.rng, self.sink, part)
            texts.append(s.cur.mogrify(sql, params).decode())
        sql = ("DO $do$ BEGIN %s; BEGIN %s; RAISE division_by_zero; EXCEPTION WHEN division_by_zero"
               " THEN NULL; END; %s; END $do$" % tuple(texts))

        def predict(tx):
            self.model.apply(tx, parts[0])
            tx.push("block")
            self.model.apply(tx, parts[1])
            tx.frames.pop()
            self.model.apply(tx, parts[2])
        self.statement(s, sql, predict=predict)

    def broken_insert(self, s):
        """A statement that fails after some of its rows went into the view."""
        batch = self.pool.batch(6, good=True)
        order_id, event_id, time, amount, group = events.columns(batch)
        self.statement(
            s, "INSERT INTO " + self.sink.ingest + " SELECT o, e, t, a / (i - 5), g"
            " FROM unnest(%s::text[], %s::text[], %s::timestamptz[], %s::numeric[], %s::text[])"
            " WITH ORDINALITY AS u (o, e, t, a, g, i)",
            [order_id, event_id, time, amount, group], error=lambda code: code == "22012")

    def seen(self, s):
        event = self.rng.choice(self.pool.events + self.pool.late[:1])
        key = (event.order_id, event.event_id)

        def predict(tx):
            first = self.model.counted.get(key)
            if first is not None and self.model.is_late(first):
                return {True, False}
            known = {first is not None}
            mine, _ = self.model.holders(tx)
            if key in mine or tx.snapshot is not None:
                known |= {True, False}
            return known
        rows, expected = self.statement(s, "SELECT revenue_sink.seen(%s, %s, %s)",
                                        [self.sink.name, key[0], key[1]], predict=predict)
        if rows[0][0] not in expected:
            raise Mismatch("seen%r is %r" % (key, rows[0][0]))

    def resolve(self, s):
        """Resolve a dead letter, or one that is resolved already, perhaps the other way round."""
        letters = self.model.letters(s.tx)
        if not letters:
            return
        letter = self.rng.choice(letters)
        known = self.model.resolution(s.tx, key_of(letter.event))
        resolution = self.rng.choice(("count", "discard"))
        # what was counted, and is late, may have expired: then a person may be wrong
        if resolution == "count" and letter.reason == "late" and key_of(letter.event) in self.model.counted and not known:
            resolution = "discard"
        event = letter.event
        sql = ("SELECT revenue_sink.resolve(%s, %s, array_agg(letter), 'model') FROM revenue_sink.dead_letter"
               " WHERE sink = %s AND order_id = %s AND event_id = %s AND event_time IS NOT DISTINCT FROM %s::timestamptz"
               " AND amount IS NOT DISTINCT FROM %s::numeric AND coalesce(group_key, '') = %s AND ")
        params = [self.sink.name, resolution, self.sink.name, event.order_id, event.event_id,
                  events.stamp(event.time), event.amount, event.group or ""]
        if letter.reason == "rejected":
            sql += "reason NOT IN ('late', 'conflict')"
        else:
            sql += "reason = %s"
            params.append(letter.reason)
        if s.tx:
            s.tx.merged = True          # even if it fails
        rows, expected = self.statement(s, sql, params, predict=lambda tx: self.model.resolve(tx, resolution, letter))
        if rows is not None:
            self.same("resolutions", rows[0][0], expected)

    # -- totals ------------------------------------------------------------

    def upsert(self, s):
        """Cells 0 and 1 have versions, 2 and 3 the order of commit, 4 the batch."""
        rng, tx = self.rng, s.tx
        batch = tx.batch() if tx else None
        kind = rng.choice(("version", "commit"))
        if batch:
            kind = "batch" if batch.writer == "w0" and rng.random() < 0.5 else "version"
        cells = {"version": (0, 1), "commit": (2, 3), "batch": (4,)}[kind]
        n = rng.randrange(1, 5)
        cells = [(self.base + self.sink.bucket * rng.choice(cells), rng.choice(("", "eu", "us"))) for _ in range(n)]
        revenue = [rng.choice(events.AMOUNTS) for _ in range(n)]
        version = rng.randrange(1, 6) if kind == "version" else None
        rank = (batch.epoch, batch.number) if kind == "batch" else version or 0
        minutes, groups = [c[0].isoformat() for c in cells], [c[1] for c in cells]

        def predict(tx):
            for cell, value in zip(cells, revenue):
                tx.add(Version(cell, Decimal(value), rank, self.model.seq, None))
            tx.upserted = True
        if rng.random() < 0.6:
            self.statement(s, "SELECT revenue_sink.upsert(%s, %s::timestamptz[], %s::numeric[], %s::text[], %s)",
                           [self.sink.name, minutes, revenue, groups, version], predict=predict)
            return
        self.statement(s, "INSERT INTO " + self.sink.ingest + " (minute, group_key, revenue, version)"
                       " SELECT m, g, r, %s::bigint FROM unnest(%s::timestamptz[], %s::text[], %s::numeric[])"
                       " AS u (m, g, r)", [version, minutes, groups, revenue], predict=predict)
        self.same("rows taken in", s.cur.rowcount, n)

    # -- reading -----------------------------------------------------------

    def read(self, s):
        ranges = [(self.base, self.base + self.sink.step)]
        if not self.sink.totals:
            ranges.append(tuple(t - datetime.timedelta(days=3) for t in ranges[0]))
        where = " OR ".join(["minute >= %s AND minute < %s"] * len(ranges))
        rows, expected = self.statement(
            s, "SELECT minute, group_key, revenue, events FROM %s WHERE %s" % (self.sink.fact, where),
            [t.isoformat() for pair in ranges for t in pair],
            predict=self.model.totals if self.sink.totals else self.model.fact)
        got = {}
        for minute, group, revenue, count in rows:
            if (minute, group) in got:
                raise Mismatch("two rows for %s, %r" % (minute, group))
            got[minute, group] = revenue if self.sink.totals else (revenue, count)
        if self.sink.totals:
            wrong = [c for c in sorted(got.keys() | expected.keys()) if got.get(c) not in expected.get(c, ())]
            if wrong:
                self.same("fact view", {c: got.get(c) for c in wrong}, {c: expected.get(c) for c in wrong})
        elif got != expected:
            self.same("fact view", sorted(set(got.items()) - set(expected.items())),
                      sorted(set(expected.items()) - set(got.items())))

    def check(self, s):
        rows, _ = self.statement(s, "SELECT problem FROM revenue_sink.check(%s)", [self.sink.name])
        self.same("check()", rows, [])

    def vacuum(self, s, how="VACUUM"):
        rows = s.run("SELECT string_agg(oid::regclass::text, ', ') FROM pg_class"
                     " WHERE relnamespace = 'revenue_sink'::regnamespace AND relkind = 'r'")
        s.run("%s %s" % (how, rows[0][0]))

    # -- the worker's work ---------------------------------------------------

    def probe(self, s, candidates):
        """Which of several deferred payloads was counted? Sending them again tells."""
        answers = []
        for event in candidates:
            _, sql, params, _ = events.by_one(self.rng, self.sink, [event])
            s.run("SAVEPOINT probe" if s.tx else "BEGIN")
            answers.append(s.run(sql, params)[0][0])
            s.run("ROLLBACK TO probe" if s.tx else "ROLLBACK")
        if sorted(answers) != ["conflict"] * (len(answers) - 1) + ["duplicate"]:
            raise Mismatch("%r after merge() are %r" % (candidates, answers))
        return candidates[answers.index("duplicate")]

    def merge(self, s):
        tx = s.tx or self.model.begin()
        self.model.touch(tx)
        rows = s.run("SELECT revenue_sink.merge(%s)", [self.sink.name])
        if rows[0][0] is None or rows[0][0] < 0:
            raise Mismatch("merge() returned %r" % (rows[0][0],))
        self.model.settle(tx, lambda candidates: self.probe(s, candidates))
        if s.tx is None:
            self.model.commit(tx)

    def settle_now(self):
        """Where the worker may settle at any moment, leave it nothing to settle."""
        if self.model.pending and self.model.ready():
            self.merge(self.admin)

    def expire(self, s):
        s.run("SELECT revenue_sink.expire(%s)", [self.sink.name])
        before, least = self.sink.horizon, self.model.least_undecided()
        self.sink.read_horizon(self.admin)
        self.model.expire()
        if before is not None and (self.sink.horizon is None or self.sink.horizon < before):
            raise Mismatch("the horizon went back from %s to %s" % (before, self.sink.horizon))
        if least is not None and self.sink.horizon is not None and self.sink.horizon >= least:
            raise Mismatch("the horizon %s passed an undecided event of %s" % (self.sink.horizon, least))

    # -- offsets and writers -------------------------------------------------

    def source(self, tx):
        return "%d-%s" % (self.number, "batch" if tx and tx.batch() else "plain")

    def store_offsets(self, s):
        partitions = self.rng.sample(range(3), self.rng.randrange(1, 4))
        values = [self.rng.randrange(1000) for _ in partitions]
        batch = s.tx.batch() if s.tx else None
        source = self.source(s.tx)

        def predict(tx):
            for partition, value in zip(partitions, values):
                rank = (batch.epoch, batch.number) if batch else (0, 0)
                tx.add(Offset(source, partition, value, rank + (self.model.tick,)))
        self.statement(s, "SELECT revenue_sink.store_offsets(%s, %s, %s::int[], %s::bigint[])",
                       [self.sink.name, source, partitions, values], predict=predict)

    def read_offsets(self, s, source=None):
        source = source or self.source(s.tx)
        rows, expected = self.statement(
            s, "SELECT source, partition, next_offset FROM revenue_sink.offsets(%s, %s)",
            [self.sink.name, source], predict=lambda tx: self.model.offsets(tx, source))
        self.same("offsets of " + source, sorted(rows), sorted((source, p, v) for p, v in expected.items()))

    def open_writer(self, s):
        writer = self.rng.choice(("w0", "w1"))
        current, top = self.model.writer_epoch.get(writer), self.model.job_epoch
        token, error = None, None
        dice = self.rng.random()
        if dice < 0.25:
            token = top + self.rng.randrange(1, 4)
        elif dice < 0.4 and current is not None and current == top:
            token = current
        elif dice < 0.55 and current is not None and current > 1:
            token, error = current - 1, is_fenced
        rows = s.run("CALL revenue_sink.open_writer(%s, %s, %s, NULL, %s)",
                     [self.sink.name, self.job, writer, token], error=error)
        if rows is not None:
            self.opened(s, rows[0][0], token, [writer])

    def recover(self, s):
        token = self.model.job_epoch + 1 if self.rng.random() < 0.3 else None
        rows = s.run("CALL revenue_sink.recover(%s, %s, 0, %s)", [self.sink.name, self.job, token])
        self.opened(s, rows[0][0], token, ["w0", "w1"])

    def opened(self, s, epoch, token, writers):
        if token is not None:
            self.same("epoch", epoch, token)
        elif epoch <= self.model.job_epoch:
            raise Mismatch("epoch %s after %s" % (epoch, self.model.job_epoch))
        self.model.job_epoch = epoch
        for writer in writers:
            self.model.writer_epoch[writer] = epoch
            for tx in self.model.writers_open(writer):
                if tx.batch().epoch != epoch:       # its predecessor's: ended
                    self.model.abort(tx)
                    next(o for o in self.sessions if o.tx is tx).fenced = True

    def after_fence(self, s):
        if s.try_commit():
            raise Mismatch("a transaction of an old epoch was committed")
        s.tx = s.fenced = None

    def commit_remains(self, s):
        """Events written after a batch was rolled back must not commit without a batch."""
        (self.upsert if self.sink.totals and self.rng.random() < 0.5 else self.store_offsets)(s)
        if s.try_commit():
            raise Mismatch("what a lost batch has left was committed")
        self.model.abort(s.tx)
        s.tx = None

    def begin_batch(self, s):
        rng, tx = self.rng, s.tx
        writer = rng.choice(sorted(self.model.writer_epoch))
        epoch = self.model.writer_epoch[writer]
        done = self.model.numbers.get((writer, epoch), set())
        last = max(done, default=rng.randrange(3))
        busy = [o for o in self.model.writers_open(writer) if o is not tx]
        number, answer, error = last + rng.randrange(1, 3), True, None
        if busy:                            # the model says nothing of other numbers
            number, error = busy[0].batch().number, is_retryable
        elif rng.random() < 0.15 and epoch > 1:
            epoch, error = epoch - 1, is_fenced
        elif rng.random() < 0.3 and done:
            number, answer = last, False
        elif rng.random() < 0.1 and done and last - 1 not in done:
            number, error = last - 1, is_refusal
        rows, _ = self.statement(s, "SELECT revenue_sink.begin_batch(%s, %s, %s, %s, %s)",
                                 [self.sink.name, self.job, writer, epoch, number], error=error)
        if rows is None:
            return
        self.same("begin_batch", rows[0][0], answer)
        if answer:
            tx.add(Batch(writer, epoch, number))
        else:                               # this batch is done: skip it
            self.rng.choice((self.commit, self.rollback))(s)

    # -- the end -------------------------------------------------------------

    def verify(self):
        """All transactions have ended: one merge() and everything is settled."""
        admin, sink = self.admin, self.sink
        if sink.worker:
            self.settle_now()
        if self.rng.random() < 0.5:
            self.read(admin)
        self.merge(admin)
        self.read(admin)
        for kind in ("plain", "batch"):
            self.read_offsets(admin, "%d-%s" % (self.number, kind))
        if not sink.totals:
            self.verify_rejected()
            self.verify_seen()
            rows = admin.run("SELECT * FROM revenue_sink.deferred WHERE sink = %s", [sink.name])
            self.same("deferred events after merge()", rows, [])
        if self.rng.random() < 0.3 and not sink.worker:
            self.expire(admin)
            self.read(admin)
        if self.rng.random() < 0.01:
            self.vacuum(admin, "VACUUM (FULL)")     # the index is built again
            self.read(admin)
        if self.rng.random() < 0.3:
            self.check(admin)

    def verify_rejected(self):
        rows = self.admin.run(
            "SELECT reason, order_id, event_id, event_time, amount, group_key FROM revenue_sink.dead_letter"
            " WHERE sink = %s AND order_id LIKE %s AND reason IN ('conflict', 'late')"
            " UNION ALL SELECT DISTINCT 'rejected', order_id, event_id, NULL::timestamptz, NULL::numeric, ''"
            " FROM revenue_sink.dead_letter"
            " WHERE sink = %s AND order_id LIKE %s AND reason NOT IN ('conflict', 'late')",
            [self.sink.name, "%d-%%" % self.number] * 2)
        if len(rows) != len(set(rows)):
            raise Mismatch("a rejected event is there twice: %r" % sorted(rows, key=repr))
        expected = set()
        for _, (reason, event) in self.model.visible(None, Rejected):
            if reason == "rejected" and event.order_id and event.order_id.startswith("%d-" % self.number):
                expected.add((reason, event.order_id, event.event_id, None, None, ""))
            elif reason != "rejected":
                expected.add((reason,) + event[:3] + (Decimal(event.amount), event.group or ""))
        got = {row[:5] + (row[5] or "",) for row in rows}
        # one row per event and reason: of several payloads one may stand for all
        if not got <= expected or {row[:3] for row in got} != {row[:3] for row in expected}:
            self.same("dead_letter", sorted(got - expected, key=repr), sorted(expected - got, key=repr))
        rows = self.admin.run("SELECT order_id, event_id, resolution FROM revenue_sink.dead_letter"
                              " WHERE sink = %s AND order_id LIKE %s", [self.sink.name, "%d-%%" % self.number])
        wrong = [row for row in rows
                 if row[2] != getattr(self.model.resolved.get(row[:2]), "resolution", None)]
        self.same("resolutions in dead_letter", wrong, [])
        rows = self.admin.run("SELECT count(*) FILTER (WHERE resolution IS NULL) - (SELECT unresolved_letters"
                              " FROM revenue_sink.stat_sink WHERE sink = %s) FROM revenue_sink.dead_letter"
                              " WHERE sink = %s", [self.sink.name, self.sink.name])
        self.same("unresolved letters that stat_sink doesn't count", rows[0][0], 0)

    def verify_seen(self):
        keys = [(e.order_id, e.event_id) for e in self.pool.events]
        rows = self.admin.run("SELECT revenue_sink.seen(%s, o, e) FROM unnest(%s::text[], %s::text[])"
                              " WITH ORDINALITY AS u (o, e, i) ORDER BY i",
                              [self.sink.name, [k[0] for k in keys], [k[1] for k in keys]])
        for key, (seen,) in zip(keys, rows):
            first = self.model.counted.get(key)
            if seen != (first is not None) and not (first and self.model.is_late(first)):
                raise Mismatch("seen%r is %r" % (key, seen))
