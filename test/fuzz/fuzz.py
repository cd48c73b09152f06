"""
Random calls of everything that the extension has, by a role that owns a sink and has no
rights on another one.

    fuzz.py DSN SEED CALLS CONNECTIONS

One thread takes the sessions by turns, so all that is called depends on the seed alone, but
for gids, which are the server's, and for what the worker does meanwhile. Two databases take
part: one in UTF8, and one in SQL_ASCII, where text may consist of any bytes.
"""
import collections
import faulthandler
import io
import os
import random
import sys
import time

import psycopg2
import psycopg2.extensions

from calls import Calls, HARMLESS
from plant import ARRIVAL, MAKE_OWN, Planted, TEMPORARY
from values import HIDDEN, literal, OWN, Values

DATABASES = [("fuzz_utf8", "UTF8"), ("fuzz_ascii", "SQL_ASCII")]
UPKEEP = 2000                   # calls between two looks at everything
MOST_EVENTS = 200000            # an own sink that has seen more is made anew
MOST_GIDS = 40
WATCHDOG = 900                  # seconds after which a call is taken to hang
SHOWN = 3000                    # characters of a statement
FIRST_FAILURES = 20             # that are printed
WRITES = ("DELETE", "UPDATE", "INSERT", "TRUNCATE", "LOCK", "ALTER")

AS_TEXT = psycopg2.extensions.new_type(tuple(range(16, 6000)), "AS_TEXT", lambda value, cur: value)
OPTIONS = "-c statement_timeout=20s -c lock_timeout=50ms"


class Crash(Exception):
    pass


def prepare(conn):
    """Settings of every connection. No bytes of a SQL_ASCII database are wrong in LATIN1."""
    conn.autocommit = True
    if conn.info.parameter_status("server_encoding") == "SQL_ASCII":
        conn.set_client_encoding("LATIN1")
    psycopg2.extensions.register_type(AS_TEXT, conn)


class Session:
    """A connection of the role "fuzz", which is made again when it is lost."""

    def __init__(self, database, dsn):
        self.database = database
        self.dsn = dsn
        self.story = []             # what was said since the last BEGIN
        self.points = []            # the savepoints since then
        self.connect()

    def connect(self):
        try:
            self.conn = psycopg2.connect(self.dsn, options=OPTIONS)
        except psycopg2.OperationalError as error:
            raise Crash(str(error))
        prepare(self.conn)
        self.conn.cursor().execute(TEMPORARY)

    def status(self):
        return self.conn.info.transaction_status

    def inside(self):
        return self.status() != psycopg2.extensions.TRANSACTION_STATUS_IDLE

    def run(self, statement):
        """Returns the SQLSTATE, "" if all went well, the rows, and all text that came."""
        if not self.inside():
            self.story = []
            self.points = []
        self.story.append(statement)
        sql = statement.encode("utf-8", "surrogateescape")
        cur = self.conn.cursor()
        rows = []
        code = ""
        texts = []
        try:
            if sql.startswith(b"COPY "):
                out = io.BytesIO()
                cur.copy_expert(sql, out)
                texts.append(out.getvalue().decode("latin-1"))
            else:
                cur.execute(sql)
                rows = cur.fetchall() if cur.description else []
        except (psycopg2.Error, UnicodeError) as error:
            code, text = self.failed(error)
            texts.append(text)
        if not code:
            self.note_point(statement)
        texts += self.conn.notices
        del self.conn.notices[:]
        texts += [str(cell) for row in rows for cell in row if cell is not None]
        return code, rows, "\n".join(texts)

    def note_point(self, statement):
        """Keep the list of savepoints; the statement went well."""
        words = statement.split(" ")
        if words[0] == "SAVEPOINT":
            self.points.append(words[1])
        elif words[-1] in self.points:
            last = len(self.points) - 1 - self.points[::-1].index(words[-1])
            if words[0] == "RELEASE":
                del self.points[last:]
            elif words[:2] == ["ROLLBACK", "TO"]:
                del self.points[last + 1:]

    def failed(self, error):
        diag = getattr(error, "diag", None)
        fields = [getattr(diag, name) for name in dir(diag) if not name.startswith("_")] if diag else []
        text = "\n".join([str(error)] + [field for field in fields if isinstance(field, str)])
        code = getattr(error, "pgcode", None) or ("08000" if self.conn.closed else "client")
        if self.conn.closed:
            self.connect()
        return code, text


class Database:
    def __init__(self, fuzz, name, encoding, rng):
        self.name = name
        self.planted = Planted(lambda user: fuzz.connect(name, user))
        self.values = Values(rng, encoding == "SQL_ASCII")
        self.values.gids.append(self.planted.gid)
        self.calls = Calls(rng, self.values, self.planted.admin)
        self.sessions = []
        self.lost = []              # own sinks that were found to be gone


class Fuzz:
    def __init__(self, dsn, seed, ncalls, nconnections):
        self.dsn = dsn
        self.seed = seed
        self.ncalls = ncalls
        self.rng = random.Random(seed)
        self.codes = collections.Counter()
        self.failures = collections.Counter()
        self.failed_functions = set()
        self.messages = set()
        self.number = 0
        self.databases = [Database(self, name, encoding, self.rng) for name, encoding in DATABASES]
        for i in range(nconnections):
            database = self.databases[i % len(self.databases)]
            database.sessions.append(Session(database, "%s dbname=%s user=fuzz" % (dsn, database.name)))

    def connect(self, name, user):
        conn = psycopg2.connect("%s dbname=%s user=%s" % (self.dsn, name, user))
        prepare(conn)
        return conn

    # -- what is wrong ---------------------------------------------------------

    def fail(self, kind, what, session=None, function=None):
        """Count a failure; print it, unless one like it was printed before."""
        self.failures[kind] += 1
        if function:
            self.failed_functions.add((kind, function.signature))
        key = (kind, function.signature if function else "", "".join(c for c in what if not c.isdigit())[:60])
        if key in self.messages or len(self.messages) >= FIRST_FAILURES:
            return
        self.messages.add(key)
        print("not ok - %s, at call %d of SEED=%d%s:\n    %s"
              % (kind, self.number, self.seed, " in " + session.database.name if session else "", what[:SHOWN]))
        for statement in session.story[-30:] if session else []:
            print("    | " + ascii(statement[:SHOWN])[1:-1] + ";")
        sys.stdout.flush()

    def judge(self, session, statement, function, sink, answer):
        code, rows, text = answer
        if code == "XX000":
            self.fail("internal error", text, session, function)
        if code == "client":
            self.fail("answer that the driver can't read", text, session, function)
        for mark in session.database.planted.marks:
            if mark in text and mark not in statement:
                self.fail("value of another role's sink", "\"%s\" in %s" % (mark, text), session, function)
        if code:
            return
        if statement.split(" ")[0] in WRITES and " revenue_sink." in statement:
            self.fail("write to a table of the extension", "succeeded", session)
        cells = [cell for row in rows for cell in row if cell not in (None, "f")]
        if function and sink in HIDDEN and not statement.startswith("SELECT 1 WHERE") and \
                ("t" in cells if function.name in HARMLESS else cells):
            self.fail("call on another role's sink", "returned %s" % cells, session, function)

    # -- calls -----------------------------------------------------------------

    def play(self, session, statement, function=None, sink=""):
        """One statement, and whether it was answered as it should be. Returns the rows, or None."""
        self.number += 1
        try:
            answer = session.run(statement)
        except Crash as crash:
            self.fail("server crash", str(crash), session, function)
            raise
        self.codes[answer[0]] += 1
        if function:
            function.calls += 1
            function.successes += answer[0] == ""
        self.judge(session, statement, function, sink, answer)
        if answer[0] == "42704" and sink in OWN:
            session.database.lost.append(sink)
        gids = session.database.values.gids
        if "pre_commit(" in statement:
            gids += [row[0] for row in answer[1] if row[0] and row[0].startswith("rs:")]
            if len(gids) > MOST_GIDS:
                del gids[self.rng.randrange(4, len(gids))]
        return answer[1] if answer[0] == "" else None

    def play_named(self, session, name, arguments=None):
        """A call of the function with this name, with the arguments, or random ones."""
        function = session.database.calls.function(name)
        if arguments is None:
            return self.play(session, *session.database.calls.call(function))
        return self.play(session, "%s revenue_sink.%s(%s)" % ("CALL" if function.is_procedure else "SELECT", name,
                                                              arguments), function)

    def make_anew(self, session):
        """Make an own sink that was dropped. One without events can be imported into."""
        name = session.database.lost[0]
        session.database.lost = [other for other in session.database.lost if other != name]
        self.play(session, MAKE_OWN[name])
        for _ in range(self.rng.randrange(6)):
            self.play_named(session, self.rng.choice(["import_totals", "import_seen"]))

    def batch(self, session):
        """What a processor says in its order, with something else in between."""
        rng = self.rng
        names = "'own', %s" % ("'job', 'w%d'" % rng.randrange(3))
        rows = self.play_named(session, "open_writer", names)
        if not rows:
            return
        epoch = rows[0][0]
        for number in range(1, rng.randrange(2, 5)):
            self.play(session, "BEGIN" + rng.choice(["", "", " ISOLATION LEVEL SERIALIZABLE"]))
            self.play_named(session, "begin_batch", "%s, %s, %d" % (names, epoch, number))
            for _ in range(rng.randrange(4)):
                self.play(session, *session.database.calls.call())
            rows = self.play_named(session, "pre_commit", "'own'") if rng.random() < 0.7 else None
            if rows and rows[0][0]:
                self.play(session, "PREPARE TRANSACTION '%s'" % rows[0][0])
                if rng.random() < 0.5:
                    self.play_named(session, rng.choice(["commit_prepared", "rollback_prepared"]),
                                    "'%s'" % rows[0][0])
            if session.inside():
                self.play(session, rng.choice(["COMMIT", "ROLLBACK"]))

    def step(self):
        database = self.rng.choice(self.databases)
        session = self.rng.choice(database.sessions)
        if session.status() == psycopg2.extensions.TRANSACTION_STATUS_INERROR:
            self.play(session, *database.calls.after_error(session.points))
        elif session.inside():
            self.play(session, *database.calls.statement(True, session.points))
        elif database.lost:
            self.make_anew(session)
        elif self.rng.random() < 0.02:
            self.batch(session)
        else:
            self.play(session, *database.calls.statement(False, []))

    # -- between calls -----------------------------------------------------------

    def upkeep(self):
        """End all transactions, look whether the sinks are whole, and make what is gone anew."""
        for database in self.databases:
            for session in database.sessions:
                for statement in ("ROLLBACK", "RESET ALL"):
                    self.play(session, statement)
            session = database.sessions[0]
            rows = self.play(session, "SELECT gid FROM pg_prepared_xacts WHERE owner = 'fuzz'"
                             " AND database = current_database() ORDER BY prepared")
            for (gid,) in rows or []:
                self.play(session, "%s PREPARED %s" % (self.rng.choice(["COMMIT", "ROLLBACK"]), literal(gid)))
            self.check(database)
            self.tidy(database)

    def check(self, database):
        cur = database.planted.admin
        cur.execute("SELECT s.name, c.problem FROM revenue_sink.sink_catalog AS s,"
                    " revenue_sink.\"check\"(s.name) AS c WHERE revenue_sink.sink_problem(s.name) IS NULL")
        for name, problem in cur.fetchall():
            self.fail("problem that check() finds", "sink %s in %s: %s" % (name, database.name, problem))
        for difference in database.planted.differences():
            self.fail("change of another role's sink", difference)
            database.planted.before = database.planted.state()

    def tidy(self, database):
        """Drop sinks that have grown, and others that came; make the own ones if they are gone."""
        admin = database.planted.admin
        admin.execute("SELECT sink, seen_events > %s OR problem IS NOT NULL FROM revenue_sink.sink"
                      " LEFT JOIN revenue_sink.stat_sink USING (sink) WHERE owner = 'fuzz' OR owner IS NULL",
                      (MOST_EVENTS,))
        fuzz = self.connect(database.name, "fuzz")
        for sink, is_large in admin.fetchall():
            if is_large == "t" or sink not in ("own", "own_totals"):
                fuzz.cursor().execute("SELECT revenue_sink.drop_sink(%s)", (sink,))
        database.planted.make_own(fuzz.cursor())
        fuzz.close()
        self.learn_tables(database)

    def learn_tables(self, database):
        """Which tables the sinks have; and what the role may read of its own: secrets and dead letters."""
        admin = database.planted.admin
        values = database.values
        admin.execute("SELECT relation::text FROM revenue_sink.sink_catalog AS s CROSS JOIN LATERAL"
                      " unnest(ARRAY['delta', 'total', 'seen']) AS kind,"
                      " revenue_sink.relation_of(s.name, kind) AS relation")
        values.tables = [row[0] for row in admin.fetchall()]
        admin.execute("SELECT revenue_sink.relation_of(sink, 'delta')::text FROM revenue_sink.sink"
                      " WHERE owner = 'fuzz' ORDER BY sink")
        values.own_tables = [row[0] for row in admin.fetchall()]
        values.secrets = []
        for table in values.own_tables:
            admin.execute(ARRIVAL % table)
            values.secrets += [row[0] for row in admin.fetchall()]
        admin.execute("SELECT letter FROM revenue_sink.dead_letter WHERE sink IN ('own', 'own_totals')"
                      " ORDER BY arrived_at DESC LIMIT 20")
        values.letters = [row[0] for row in admin.fetchall()]

    def run(self):
        next_upkeep = 0
        try:
            while self.number < self.ncalls:
                if self.number >= next_upkeep:
                    faulthandler.dump_traceback_later(WATCHDOG, exit=True)
                    self.upkeep()
                    next_upkeep = self.number + UPKEEP
                self.step()
            self.upkeep()
        except (Crash, psycopg2.OperationalError) as error:
            if not self.failures["server crash"]:
                self.fail("server crash", str(error))

    # -- the end -----------------------------------------------------------------

    def report(self):
        """Print what was called, and a line for all that must not be. Returns how many passed and failed."""
        passed = failed = 0
        functions = collections.OrderedDict()
        for database in self.databases:
            for f in database.calls.functions:
                one = functions.setdefault(f.signature, [0, 0, f.may_call])
                one[0] += f.calls
                one[1] += f.successes
        for signature, (calls, successes, may_call) in functions.items():
            kinds = sorted(kind for kind, name in self.failed_functions if name == signature)
            right = calls > 0 and not kinds and (may_call or successes == 0)
            passed, failed = passed + right, failed + (not right)
            print("%s - %s: %d calls, %d went well%s%s"
                  % ("ok" if right else "not ok", signature, calls, successes,
                     "" if may_call else ", not for PUBLIC", "".join(", " + kind for kind in kinds)))
        for kind in ("server crash", "internal error", "answer that the driver can't read",
                     "value of another role's sink", "call on another role's sink", "change of another role's sink",
                     "write to a table of the extension", "problem that check() finds"):
            n = self.failures[kind]
            passed, failed = passed + (n == 0), failed + (n > 0)
            print("%s - %s: %d" % ("ok" if n == 0 else "not ok", kind, n))
        print("SQLSTATE: " + ", ".join("%s %d" % (code or "none", n) for code, n in self.codes.most_common()))
        return passed, failed


def main():
    dsn, seed, ncalls, nconnections = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    started = time.time()
    fuzz = Fuzz(dsn, seed, ncalls, max(nconnections, len(DATABASES)))
    fuzz.run()
    passed, failed = fuzz.report()
    print("%d statements in %d s" % (fuzz.number, time.time() - started))
    print("%d passed, %d failed" % (passed, failed))
    sys.stdout.flush()
    os._exit(failed > 0)


main()
