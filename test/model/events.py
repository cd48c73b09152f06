"""Random events out of a small pool, and the doors by which they go in."""
from decimal import Decimal
import datetime
import io
import json

from state import Event

AMOUNTS = ["0", "0.01", "1.0", "10", "-5.50", "65", "1E-10", "-0.01", "99.999",
           "100000000000000000000", "-3", "7.25", "123456789.123456789"]
GROUPS = [None, "", "eu", "us", "ünï 'q\"", "a,b\\c"]
BAD = ["no order", "empty order", "long order", "no event", "empty event", "long event",
       "no time", "infinite time", "future", "no amount", "nan", "infinity"]


def stamp(time):
    return time if time is None or isinstance(time, str) else time.isoformat()


class Pool:
    """The events of one sequence: a few ids and minutes, so that they collide."""

    def __init__(self, rng, sink, number, base):
        self.rng = rng
        self.sink = sink
        self.number = number
        self.base = base
        # Ids whose concatenation is the same, and ids that differ by one blank.
        orders = ["%d-a" % number, "%d-aa" % number, "%d-b " % number, "%d-b" % number]
        self.events = [self.fresh(o, e) for o in orders for e in ("ab", "b", "évt")]
        self.late = [self.fresh("%d-late" % number, str(i), late=True) for i in range(3)]
        self.nlate = 0

    def time(self):
        return self.base + datetime.timedelta(
            microseconds=self.rng.randrange(self.sink.spread // datetime.timedelta(microseconds=1)))

    def fresh(self, order, event, late=False):
        time = self.time()
        if late:
            time -= datetime.timedelta(days=3)
        return Event(order, event, time, self.rng.choice(AMOUNTS), self.rng.choice(GROUPS))

    def variant(self, event):
        """The same ids with another payload, or with the same payload written differently."""
        kind = self.rng.choice(("amount", "group", "scale", "null", "time"))
        if kind == "amount":
            return event._replace(amount=str(Decimal(event.amount) + 1))
        if kind == "group":
            return event._replace(group=(event.group or "") + "x")
        if kind == "time" and not self.sink.tight:
            return event._replace(time=event.time + datetime.timedelta(microseconds=1))
        if kind == "null" and not event.group:
            return event._replace(group="" if event.group is None else None)
        amount = format(Decimal(event.amount), "f")
        return event._replace(amount=amount + ("0" if "." in amount else ".00"))

    def bad(self, event):
        kind = self.rng.choice(BAD)
        return event._replace(**{
            "no order": {"order_id": None}, "empty order": {"order_id": ""},
            "long order": {"order_id": "x" * 1025}, "no event": {"event_id": None},
            "empty event": {"event_id": ""}, "long event": {"event_id": "é" * 513},
            "no time": {"time": None}, "infinite time": {"time": "infinity"},
            "future": {"time": event.time + datetime.timedelta(days=400)},
            "no amount": {"amount": None}, "nan": {"amount": "NaN"},
            "infinity": {"amount": "Infinity"}}[kind])

    def batch(self, n, good=False):
        rng = self.rng
        if n > 20:                      # fillers: ranges that overlap
            first = rng.randrange(n)
            return [Event("%d-fill" % self.number, str(i), self.base, "1", "fill")
                    for i in range(first, first + n)]
        events = []
        for _ in range(n):
            event = rng.choice(self.events)
            dice = 1.0 if good else rng.random()
            if dice < 0.10:
                event = self.variant(event)
            elif dice < 0.14:
                event = rng.choice(self.late)
                if self.sink.apply_late:        # a second one comes without a promise
                    self.nlate += 1
                    event = event._replace(event_id="u%d" % self.nlate)
            elif dice < (0.18 if self.sink.reject_bad else 0.155):
                event = self.bad(event)
            events.append(event)
        return events


# -- doors -----------------------------------------------------------------
# Each gives (kind of answer, sql, parameters, COPY data).

def columns(events):
    return ([e.order_id for e in events], [e.event_id for e in events],
            [stamp(e.time) for e in events], [e.amount for e in events],
            [e.group for e in events])


def by_arrays(rng, sink, events):
    order_id, event_id, time, amount, group = columns(events)
    sql = "SELECT * FROM revenue_sink.apply(%s, %s::text[], %s::text[], %s::timestamptz[], %s::numeric[]"
    params = [sink.name, order_id, event_id, time, amount]
    if all(g is None for g in group) and rng.random() < 0.5:
        return "counts", sql + ")", params, None
    return "counts", sql + ", %s::text[])", params + [group], None


def by_json(rng, sink, events):
    objects = []
    for e in events:
        members = []
        for name, value in zip(Event._fields, e):
            name = {"time": "event_time", "group": "group_key"}.get(name, name)
            if value is None and rng.random() < 0.5:
                continue
            if name == "amount" and value is not None and Decimal(value).is_finite():
                text = value                    # a JSON number, digit for digit
            else:
                text = json.dumps(stamp(value))
            members.append("%s: %s" % (json.dumps(name), text))
        objects.append("{%s}" % ", ".join(members))
    text = objects[0] if len(objects) == 1 else "[%s]" % ", ".join(objects)
    return "counts", "SELECT * FROM revenue_sink.apply(%s, %s::jsonb)", [sink.name, text], None


def by_one(rng, sink, events):
    e = events[0]
    return ("status", "SELECT revenue_sink.apply(%s, %s::text, %s::text, %s::timestamptz, %s::numeric, %s::text)",
            [sink.name, e.order_id, e.event_id, stamp(e.time), e.amount, e.group], None)


def rows_of(events):
    params = []
    for e in events:
        params += [e.order_id, e.event_id, stamp(e.time), e.amount, e.group]
    return ", ".join(["(%s, %s, %s::timestamptz, %s::numeric, %s)"] * len(events)), params


def by_insert(rng, sink, events):
    values, params = rows_of(events)
    tail = rng.choice(("", "", " ON CONFLICT DO NOTHING"))
    return "rows", "INSERT INTO %s VALUES %s%s" % (sink.ingest, values, tail), params, None


def by_select(rng, sink, events):
    return ("rows", "INSERT INTO " + sink.ingest + " (order_id, event_id, event_time, amount, group_key)"
            " SELECT * FROM unnest(%s::text[], %s::text[], %s::timestamptz[], %s::numeric[], %s::text[])",
            list(columns(events)), None)


def by_copy(rng, sink, events):
    out = io.StringIO()
    if rng.random() < 0.5:
        for e in events:
            out.write("\t".join(
                "\\N" if v is None else v.replace("\\", "\\\\")
                for v in (e.order_id, e.event_id, stamp(e.time), e.amount, e.group)) + "\n")
        return "rows", "COPY %s FROM STDIN" % sink.ingest, [], out.getvalue()
    for e in events:                    # csv: NULL is unquoted, the rest is not
        out.write(",".join(
            "" if v is None else '"%s"' % v.replace('"', '""')
            for v in (e.order_id, e.event_id, stamp(e.time), e.amount, e.group)) + "\n")
    return "rows", "COPY %s FROM STDIN (FORMAT csv)" % sink.ingest, [], out.getvalue()


def choose(rng, sink, events):
    if len(events) == 1 and rng.random() < 0.6:
        return rng.choice((by_one, by_one, by_json, by_insert))(rng, sink, events)
    if not events:
        return rng.choice((by_arrays, by_select))(rng, sink, events)
    door = rng.choice((by_arrays, by_arrays, by_json, by_insert, by_select, by_copy))
    # With more than a few rows VALUES lists only cost time; without rows json is null.
    if len(events) > 50 and door is by_insert:
        door = by_copy
    return door(rng, sink, events)
