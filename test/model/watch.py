"""All or nothing: readers watch pairs of minutes while writers and merges go on.

Each transaction puts the same events into a minute of the left half as into one
of the right half, in one call or several, by every door, some of it rolled back
or prepared. Whoever looks, and however, must find the halves equal, and no less
in them than before.
"""
import datetime
import io
import random
import threading
import traceback

import psycopg2

from session import Mismatch, Session

MINUTE = datetime.timedelta(minutes=1)
SINK = "watched %s"
WRITERS = 2
HALVES = ("SELECT coalesce(sum({what}) FILTER (WHERE minute < '{middle}'), 0),"
          " coalesce(sum({what}) FILTER (WHERE minute >= '{middle}'), 0) FROM {fact}")


class Watched:
    def __init__(self, dsn, mode, now):
        self.dsn = dsn
        self.mode = mode
        self.name = SINK % mode
        self.fact, self.ingest = "watched_" + mode, "watched_in_" + mode
        self.what = "events" if mode == "events" else "revenue"
        self.base = now.replace(second=0, microsecond=0) - 60 * MINUTE
        self.middle = self.base + 10 * MINUTE
        self.written = [0] * WRITERS        # pairs that were committed
        self.writing = threading.Event()
        self.looks = 0

    def connect(self):
        conn = psycopg2.connect(self.dsn, options=Session.OPTIONS)
        conn.autocommit = True
        return conn.cursor()

    # -- writing -----------------------------------------------------------

    def put_event(self, cur, door, ids, minute):
        order_id = ["o%d" % i for i in ids]
        if door == "copy":
            cur.copy_expert("COPY %s FROM STDIN" % self.ingest, io.StringIO(
                "".join("%s\t%s\t%s\t1\t\n" % (o, minute, minute.isoformat()) for o in order_id)))
        elif door == "insert":
            cur.execute("INSERT INTO " + self.ingest + " SELECT o, %s, %s, 1, '' FROM unnest(%s::text[]) AS o",
                        [str(minute), minute.isoformat(), order_id])
        else:
            cur.execute("SELECT revenue_sink.apply(%s, %s::text[], %s::text[], %s::timestamptz[], %s::numeric[])",
                        [self.name, order_id, [str(minute)] * len(ids), [minute.isoformat()] * len(ids), [1] * len(ids)])

    def put(self, cur, rng, writer, number, minutes):
        """Into each of the minutes the same."""
        if self.mode == "totals":
            cur.execute("SELECT revenue_sink.upsert(%s, %s::timestamptz[], %s::numeric[], %s::text[], %s)",
                        [self.name, [m.isoformat() for m in minutes], [number] * len(minutes),
                         ["w%d" % writer] * len(minutes), number])
            return
        first = (writer * 1000000 + number) * 8
        for minute in minutes:
            self.put_event(cur, rng.choice(("apply", "insert", "copy")), range(first, first + 1 + number % 7), minute)

    def write(self, writer, seed, transactions):
        rng = random.Random("%s/watch %s %d" % (seed, self.mode, writer))
        cur = self.connect()
        for number in range(1, transactions + 1):
            minute = self.base + MINUTE * rng.randrange(5)
            pair = (minute, minute + 10 * MINUTE)
            end = rng.choice(("COMMIT", "COMMIT", "COMMIT", "ROLLBACK", "prepared"))
            cur.execute("BEGIN")
            if rng.random() < 0.2:
                cur.execute("SAVEPOINT p")
                self.put(cur, rng, writer, number, pair[:1])
                cur.execute("ROLLBACK TO p")
            self.put(cur, rng, writer, number, pair)
            if rng.random() < 0.2:
                self.put(cur, rng, writer, number, pair)        # the same again
            if end == "prepared":
                gid = "watched %s %d %d" % (self.mode, writer, number)
                cur.execute("PREPARE TRANSACTION %s", [gid])
                end = rng.choice(("COMMIT PREPARED '%s'", "ROLLBACK PREPARED '%s'")) % gid
            cur.execute(end)
            if end.startswith("COMMIT"):
                self.written[writer] += 1 + number % 7
        cur.connection.close()

    # -- watching ----------------------------------------------------------

    def look_once(self, cur):
        cur.execute(HALVES.format(what=self.what, middle=self.middle, fact=self.fact))
        return cur.fetchone()

    def look_twice(self, cur):
        """One snapshot, two queries, something else between them."""
        halves = []
        cur.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        for side in ("<", ">="):
            cur.execute("SELECT coalesce(sum(%s), 0) FROM %s WHERE minute %s '%s'"
                        % (self.what, self.fact, side, self.middle))
            halves.append(cur.fetchone()[0])
            cur.execute("SELECT count(*) FROM revenue_sink.stat_sink")
        cur.execute("COMMIT")
        return halves

    def look_slowly(self, cur):
        """A cursor that is fetched row by row while others commit and merge."""
        halves = [0, 0]
        cur.execute("BEGIN")
        cur.execute("DECLARE c CURSOR FOR SELECT minute, %s FROM %s" % (self.what, self.fact))
        while True:
            cur.execute("FETCH 1 FROM c")
            row = cur.fetchone()
            if row is None:
                break
            halves[row[0] >= self.middle] += row[1]
        cur.execute("COMMIT")
        return halves

    def watch(self, look):
        cur = self.connect()
        before = 0
        while True:
            last = not self.writing.is_set()        # then one more look
            left, right = look(cur)
            self.looks += 1
            if left != right:
                raise Mismatch("%s: %s on the left, %s on the right" % (look.__name__, left, right))
            if self.mode == "events" and left < before:
                raise Mismatch("%s: %s after %s" % (look.__name__, left, before))
            before = left
            if last:
                break
        cur.connection.close()

    def merge(self):
        cur = self.connect()
        while self.writing.is_set():
            cur.execute("SELECT revenue_sink.merge(%s)", [self.name])
        cur.connection.close()

    def verify(self):
        cur = self.connect()
        left, right = self.look_once(cur)
        cur.execute("SELECT problem FROM revenue_sink.check(%s)", [self.name])
        problems = cur.fetchall()
        if problems:
            raise Mismatch("check(): %r" % problems)
        if self.mode == "events" and left != sum(self.written):
            raise Mismatch("%s events in the end, not %s" % (left, sum(self.written)))
        cur.execute("SELECT revenue_sink.drop_sink(%s)", [self.name])
        cur.connection.close()


class Task(threading.Thread):
    """A thread that keeps its error."""

    def __init__(self, name, what, *args):
        super().__init__(target=what, args=args, name=name)
        self.error = None

    def run(self):
        try:
            super().run()
        except (Mismatch, psycopg2.Error):
            self.error = traceback.format_exc()


def watch(dsn, seed, transactions, now):
    """Returns how many readers and writers found no fault, and how many did."""
    passed = failed = 0
    for mode in ("events", "totals"):
        w = Watched(dsn, mode, now)
        cur = w.connect()
        cur.execute("SELECT revenue_sink.create_sink(%s, %s, %s, mode => %s)", [w.name, w.fact, w.ingest, mode])
        cur.connection.close()
        w.writing.set()
        writers = [Task("writer %d" % n, w.write, n, seed, transactions) for n in range(WRITERS)]
        others = [Task(look.__name__, w.watch, look) for look in (w.look_once, w.look_twice, w.look_slowly)]
        others.append(Task("merge", w.merge))
        for task in writers + others:
            task.start()
        for task in writers:
            task.join()
        w.writing.clear()
        for task in others:
            task.join()
        last = Task("the end", w.verify)
        last.run()
        for task in writers + others + [last]:
            if task.error:
                failed += 1
                print("-- watching a sink of mode '%s', seed %s: %s failed\n%s" % (mode, seed, task.name, task.error))
            else:
                passed += 1
        print("-- watched a sink of mode '%s': %d looks at %d transactions"
              % (mode, w.looks, WRITERS * transactions), flush=True)
    return passed, failed
