"""The model: what a sink promises, in a page of Python.

A transaction is a stack of frames, one per savepoint; a frame is a list of
effects. ROLLBACK TO drops frames, COMMIT moves their effects to the committed
ones under the next number of the commit order, and a snapshot is such a number.
Whatever a session may see is then "committed up to my snapshot, and my own".
"""
from collections import namedtuple
from decimal import Decimal
import datetime
import decimal

decimal.getcontext().prec = 200

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
STATUSES = ("applied", "duplicate", "deferred", "conflict", "late", "rejected")

# An event as it is sent: the amount is a text, because 1.0 and 1.00 differ as
# texts only. time is a datetime, None or 'infinity'.
Event = namedtuple("Event", "order_id event_id time amount group")

# What transactions leave behind.
Claim = namedtuple("Claim", "key event")            # counted; key None: no promise
Deferred = namedtuple("Deferred", "row event")      # row: its identity
Settled = namedtuple("Settled", "row")              # a deferred row taken by merge()
Rejected = namedtuple("Rejected", "reason event")
Resolved = namedtuple("Resolved", "key resolution payload")     # of that dead letter
Offset = namedtuple("Offset", "source partition value rank")
Version = namedtuple("Version", "cell value rank base prepared")    # seq when written, prepared
Batch = namedtuple("Batch", "writer epoch number")
Merge = namedtuple("Merge", "")                     # merge() or resolve() was called


def key_of(event):
    return (event.order_id, event.event_id)


def content_of(event):
    return (event.time, Decimal(event.amount), event.group or "")


def payload_of(event):
    """Like content_of(), of any event."""
    amount = Decimal(event.amount) if event.amount is not None else None
    return (event.time, str(amount) if amount is not None and not amount.is_finite() else amount, event.group or "")


class Refused(Exception):
    """The dead letter can't be resolved so."""


class BadEvent(Exception):
    """The call must fail: a bad event under on_bad_event 'error'."""


class Tx:
    def __init__(self, isolation="READ COMMITTED"):
        self.isolation = isolation
        self.snapshot = None            # fixed by the first query, if it is kept
        self.frames = [("", [])]        # (savepoint, effects)
        self.failed = False
        self.calls = 0
        self.upserted = False           # even if it was rolled back
        self.began = False              # a batch, even if it was rolled back
        self.merged = False             # likewise

    def effects(self):
        return (effect for _, effects in self.frames for effect in effects)

    def of(self, kind):
        return [e for e in self.effects() if isinstance(e, kind)]

    def add(self, effect):
        self.began |= isinstance(effect, Batch)
        self.merged |= isinstance(effect, Merge)
        self.frames[-1][1].append(effect)

    def push(self, name):
        self.frames.append((name, []))

    def fail(self):
        """An error aborts the innermost subtransaction, or all there is."""
        self.frames[-1] = (self.frames[-1][0], [])
        self.failed = True

    def savepoints(self):
        return [name for name, _ in self.frames[1:]]

    def rollback_to(self, name):
        while self.frames[-1][0] != name:
            self.frames.pop()
        self.frames[-1] = (name, [])
        self.failed = False

    def release(self, name):
        while True:
            popped, effects = self.frames.pop()
            self.frames[-1][1].extend(effects)
            if popped == name:
                return

    def batch(self):
        return next(iter(self.of(Batch)), None)

    def has_lost_batch(self):
        """Was a batch rolled back with a savepoint, and none begun since?"""
        return self.began and not self.batch()


class Model:
    """One sequence on one sink: ids and minutes are its own."""

    def __init__(self, sink, now):
        self.sink = sink
        self.now = now
        self.seq = 0                    # the commit order
        self.tick = 0                   # the order of statements
        self.committed = []             # (seq, effect)
        self.limits = [(0, sink.limit)]     # of what is kept, likewise
        self.counted = {}               # key -> event, of committed claims
        self.resolved = {}              # key -> Resolved, committed
        self.pending = []               # committed Deferred, not settled
        self.open = []                  # unfinished transactions
        self.job_epoch = 0
        self.writer_epoch = {}
        self.numbers = {}               # (writer, epoch) -> committed numbers

    # -- transactions ------------------------------------------------------

    def begin(self, isolation="READ COMMITTED"):
        tx = Tx(isolation)
        self.open.append(tx)
        return tx

    def touch(self, tx):
        """A query runs in tx."""
        self.tick += 1
        tx.calls += 1
        if tx.isolation != "READ COMMITTED" and tx.snapshot is None:
            tx.snapshot = self.seq

    def abort(self, tx):
        self.open.remove(tx)

    def prepare(self, tx):
        for _, effects in tx.frames:
            effects[:] = [e._replace(prepared=self.seq + 0.5) if isinstance(e, Version) else e
                          for e in effects]

    def commit(self, tx):
        self.open.remove(tx)
        self.seq += 1
        for effect in tx.effects():
            self.committed.append((self.seq, effect))
            if isinstance(effect, Claim) and effect.key is not None:
                self.counted[effect.key] = effect.event
            elif isinstance(effect, Resolved):
                self.resolved[effect.key] = effect
            elif isinstance(effect, Deferred):
                self.pending.append(effect)
            elif isinstance(effect, Settled):
                self.pending = [d for d in self.pending if d.row != effect.row]
            elif isinstance(effect, Batch):
                self.numbers.setdefault((effect.writer, effect.epoch), set()).add(effect.number)

    def visible(self, tx, kind):
        """(seq, effect) of kind as tx sees them; its own have seq None."""
        limit = self.seq if tx is None or tx.snapshot is None else tx.snapshot
        seen = [(seq, e) for seq, e in self.committed if seq <= limit and isinstance(e, kind)]
        if tx is not None:
            seen += [(None, e) for e in tx.of(kind)]
        return seen

    # -- events ------------------------------------------------------------

    def is_bad(self, event):
        for text in (event.order_id, event.event_id):
            if not text or len(text.encode()) > 1024:
                return True
        if event.time is None or event.time == "infinity":
            return True
        if event.time > self.now + datetime.timedelta(hours=1):
            return True
        return event.amount is None or not Decimal(event.amount).is_finite()

    def is_late(self, event):
        return self.sink.horizon is not None and event.time <= self.sink.horizon

    def holders(self, tx):
        """key -> event claimed by an unfinished transaction: my own, others'."""
        mine, others = {}, {}
        for other in self.open:
            (mine if other is tx else others).update(
                (c.key, c.event) for c in other.of(Claim) if c.key is not None)
        return mine, others

    def apply(self, tx, events):
        """The statuses of events applied by tx, which gets the effects."""
        if not self.sink.reject_bad and any(map(self.is_bad, events)):
            raise BadEvent
        mine, others = self.holders(tx)
        return [self.apply_one(tx, e, mine, others) for e in events]

    def resolution(self, tx, key):
        """What is decided on an event, as tx may know."""
        mine = [r for r in tx.of(Resolved) if r.key == key] if tx is not None else []
        return mine[0] if mine else self.resolved.get(key)

    def reject(self, tx, event, status):
        """The status of an event that becomes a dead letter, unless it is resolved."""
        resolved = self.resolution(tx, key_of(event))
        if resolved is None:
            tx.add(Rejected(status, event))
            return status
        if resolved.payload == payload_of(event):
            return "duplicate"
        return "conflict" if status == "late" and resolved.resolution == "count" else status

    def apply_one(self, tx, event, mine, others):
        if self.is_bad(event):
            return self.reject(tx, event, "rejected")
        key = key_of(event)
        resolved = self.resolution(tx, key)
        if self.is_late(event) and not (self.sink.apply_late and resolved is None):
            return self.reject(tx, event, "late")
        if self.is_late(event):
            tx.add(Claim(None, event))
            return "late"
        first = self.counted.get(key) or mine.get(key)
        if first is not None:
            return "duplicate" if content_of(first) == content_of(event) else self.reject(tx, event, "conflict")
        if key in others or resolved is None and any(r.key == key for o in self.open for r in o.of(Resolved)):
            self.tick += 1
            tx.add(Deferred(self.tick, event))
            return "deferred"
        if resolved is not None:
            return self.reject(tx, event, "conflict")
        tx.add(Claim(key, event))
        mine[key] = event
        return "applied"

    def letters(self, tx):
        """Dead letters that tx sees, of events with good ids."""
        return sorted({r for _, r in self.visible(tx, Rejected)
                       if r.event.order_id and r.event.event_id and r.event.order_id[:1].isdigit()
                       and len(r.event.event_id) < 100}, key=repr)

    def resolve(self, tx, resolution, letter):
        """How many resolutions resolve() makes."""
        event, key = letter.event, key_of(letter.event)
        resolved = self.resolution(tx, key)
        if resolved is not None:
            if resolved.resolution != resolution:
                raise Refused
            tx.add(Merge())
            return 0
        if resolution == "count":
            conflicts = [r for _, r in self.committed if isinstance(r, Rejected)] + tx.of(Rejected)
            if letter.reason != "late" or any(r.reason == "conflict" and key_of(r.event) == key for r in conflicts):
                raise Refused
            if self.sink.limit is not None and self.sink.minute(event.time) < self.sink.limit:
                raise Refused
            if any(key in claims for claims in self.holders(tx)):
                raise Refused
            tx.add(Claim(key, event))
        tx.add(Resolved(key, resolution, payload_of(event)))
        tx.add(Merge())
        return 1

    def ready(self, tx=None):
        """Deferred rows that a merge() in tx settles, by key."""
        _, others = self.holders(tx)
        taken = {s.row for s in tx.of(Settled)} if tx is not None else ()
        rows = {}
        for d in self.pending:
            key = key_of(d.event)
            if key not in others and d.row not in taken:
                rows.setdefault(key, []).append(d)
        return rows

    def settle(self, tx, probe):
        """merge() in tx. Of several contents any may come first: probe tells."""
        mine, _ = self.holders(tx)
        for key, rows in self.ready(tx).items():
            first = self.counted.get(key) or mine.get(key)
            if first is None and self.resolution(tx, key) is None:
                contents = {content_of(d.event): d.event for d in rows}
                first = rows[0].event if len(contents) == 1 else probe(list(contents.values()))
                tx.add(Claim(key, first))
            for d in rows:
                tx.add(Settled(d.row))
                if first is None or content_of(d.event) != content_of(first):
                    self.reject(tx, d.event, "conflict")
        tx.add(Merge())

    def least_undecided(self):
        """The oldest event time that the horizon must not pass."""
        events = [d.event for d in self.pending]
        for tx in self.open:
            events += [e.event for e in tx.of((Claim, Deferred))]
        return min((e.time for e in events if not self.is_late(e)), default=None)

    # -- what readers see --------------------------------------------------

    def expire(self):
        """The sink has raised its limit, if it has one, in a transaction of its own."""
        self.seq += 1
        self.limits.append((self.seq, self.sink.limit))

    def is_removed(self, tx, minute):
        """Has tx a snapshot in which the minute is no longer kept?"""
        seen = self.seq if tx is None or tx.snapshot is None else tx.snapshot
        limit = max((limit for seq, limit in self.limits if seq <= seen and limit is not None), default=None)
        return limit is not None and minute < limit

    def fact(self, tx):
        """(minute, group) -> (revenue, events)."""
        totals = {}
        for _, claim in self.visible(tx, Claim):
            cell = (self.sink.minute(claim.event.time), claim.event.group or "")
            if self.is_removed(tx, cell[0]):
                continue
            revenue, events = totals.get(cell, (Decimal(0), 0))
            totals[cell] = (revenue + Decimal(claim.event.amount), events + 1)
        return totals

    def totals(self, tx):
        """(minute, group) -> the revenues allowed.

        The highest rank wins, and of equal ones the last commit. Of a version
        whose transaction is still open the order isn't known yet, nor is it
        said which moment counts of one that was prepared: these have a range of
        moments, and whatever isn't surely beaten may be shown.
        """
        cells = {}
        for seq, v in self.visible(tx, Version):
            first, last = (v.base + 0.5, float("inf")) if seq is None else (v.prepared or seq, seq)
            cells.setdefault(v.cell, {})[seq, v.rank] = (v.rank, first, last, v.value)
        allowed = {}
        for cell, versions in cells.items():
            top = max(rank for rank, _, _, _ in versions.values())
            best = [v for v in versions.values() if v[0] == top]
            beaten = max(first for _, first, _, _ in best)
            allowed[cell] = {value for _, _, last, value in best if last >= beaten}
        return allowed

    def offsets(self, tx, source):
        best = {}
        for _, o in self.visible(tx, Offset):
            if o.source == source:
                best[o.partition] = max(best.get(o.partition, (o.rank, o.value)), (o.rank, o.value))
        return {partition: value for partition, (_, value) in best.items()}

    # -- writers -----------------------------------------------------------

    def writers_open(self, writer=None):
        """Unfinished transactions with a batch, of one writer or of the job."""
        return [tx for tx in self.open
                if tx.batch() and (writer is None or tx.batch().writer == writer)]
