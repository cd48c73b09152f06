"""Random arguments, as SQL: sensible ones, odd ones, and ones of the wrong type."""

OWN = ["own", "own_totals"]
HIDDEN = ["hidden", "hidden_totals"]

WORDS = ["events", "totals", "reject", "apply", "error", "count", "discard", "fact", "ingest", "seen", "slice",
         "sealed", "filter", "delta", "total"]
NAMES = ["job", "w1", "w2", "topic", "a b", "ä", "-", "x" * 41, "x" * 1024, "x" * 1025, ":", "rs:1:2:3", ""]
TEXTS = ["", " ", "'", "\\", '"', "%s%n", "NULL", "{}", "ä€𝄞", "\x01\x7f", "a\nb\r\n", "; DROP", "x" * 62, "x" * 63,
         "x" * 64, "ä" * 32, "x" * 1024, "x" * 1025, "y" * 100000, "pg_class", "pg_temp.t", "a.b.c", '"q".v', "1", "-0"]
# Bytes that are no UTF8; only a database in SQL_ASCII takes them.
RAW = ["\udcff", "\udcc3", "a\udc80b", "\udced\udca0\udc80", "\udcf0\udc9f"]
TIMES = ["infinity", "-infinity", "4714-11-24 00:00:00+00 BC", "294276-12-31 23:59:59.999999+00", "epoch",
         "1999-12-31 23:59:60+00", "2000-01-01 00:00:00.000001+00", "0001-01-01 BC", "1970-01-01 00:00:01+14",
         "4713-01-01 00:00:00+00 BC", "today", "9999-12-31 23:59:59+00"]
NUMBERS = ["NaN", "Infinity", "-Infinity", "0", "-0.00", "1e100", "-1e100", "9.99e99", "1e131071", "-1e131000",
           "1e-16383", "0." + "0" * 500 + "1", "9" * 1000 + "." + "9" * 1000, "170141183460469231731.68730371",
           "92233720368547758.07", "-170141183460469231731687303715884105728", "0.00000001", "0.000000001",
           "1." + "0" * 9000]
BIGINTS = [0, 1, -1, 2, 2**31 - 1, 2**31, -2**31 - 1, 2**62, 2**63 - 1, -2**63, 2**40]
INTERVALS = ["0", "1 day", "1 hour", "1 minute", "-1 day", "1 microsecond", "1 month", "178000000 years",
             "106751991 days", "-178956970 years -8 months", "2147483647 days", "1 day -24 hours", "1000 years",
             "9223372036854775807 microseconds", "-9223372036854775808 microseconds", "400 days"]
JSON = ["null", "[]", "{}", "1", '"x"', "[1]", "[[]]", "[null]", '[{"order_id": {}}]', '[{"amount": true}]',
        '[{"order_id": "\\u0001"}]', '{"order_id": 1, "order_id": 2}', '[{"amount": 1e400}]', "[" * 200 + "]" * 200,
        '[{"event_time": "soon"}]', '{"order_id": "o", "event_id": 7, "event_time": "infinity", "amount": "NaN"}']
RELATIONS = ["0", "4294967295", "pg_class", "pg_toast.pg_toast_1255", "pg_proc", "revenue_sink.sink_catalog",
             "revenue_sink.sink", "fuzz.own_facts", "fuzz.own_events", "other.facts", "nowhere.at_all"]
TIDS = ["(0,0)", "(0,1)", "(0,2)", "(4294967295,65535)", "(1,65535)", "(7,1)"]
GARBAGE = ["NULL", "'x'", "''", "1", "-1.5", "true", "'{}'", "'{1,2}'", "'now'", "ROW(1, 2)", "'\\x00'::bytea",
           "'{{a,b},{c,d}}'::text[]", "ARRAY[[1,2],[3,4]]", "'a'::\"char\"", "B'101'", "1e10::float8", "'{}'::jsonb",
           "ARRAY[]::text[]", "'1 day'::interval", "'pg_class'::regclass", "(SELECT 1 WHERE false)", "DEFAULT"]


def literal(value):
    """A string as a literal, which doesn't depend on standard_conforming_strings."""
    quoted = value.replace("'", "''")
    return " E'%s'" % quoted.replace("\\", "\\\\") if "\\" in quoted else "'%s'" % quoted


class Values:
    """What arguments are made of; "rng" decides, "gids" and "tables" are filled by whoever learns of some."""

    def __init__(self, rng, raw):
        self.rng = rng
        self.raw = raw                  # may text have bytes that are no text?
        self.gids = ["", "x", "rs:0:1:job:w1:1:1:1:0", "rs:" + "9" * 190]
        self.tables = []                # of all sinks, with their schema
        self.own_tables = []            # tables of deltas of the role's own sinks
        self.secrets = []               # and what their fact views call stands() with
        self.letters = []               # dead letters of the role's own sinks
        self.totals = False             # is the next call one for a sink in mode 'totals'?
        self.length = 1                 # of the arrays of a call

    # -- one argument --------------------------------------------------------

    def argument(self, name, type, mood):
        """mood: "good", or "odd" for a value of the type, or "wrong" for whatever there is."""
        if mood == "wrong":
            return self.rng.choice(GARBAGE) if self.rng.random() < 0.7 else self.argument(name, "text", "odd")
        if mood == "odd" and self.rng.random() < 0.15:
            return "NULL"
        if type.endswith("[]"):
            return self.array(name, type, mood)
        value = self.scalar(name, type, mood)
        return "NULL" if value is None else "%s::%s" % (literal(value), type)

    def scalar(self, name, type, mood):
        make = {"text": self.text, "timestamp with time zone": self.time, "numeric": self.number,
                "bigint": self.bigint, "integer": self.integer, "interval": self.interval, "jsonb": self.json,
                "regclass": self.relation, "tid": self.tid, "bytea": self.bytes}.get(type)
        if make is None:
            return self.rng.choice([None, "1", "x", ""])
        return make(name, mood == "odd")

    def text(self, name, odd):
        rng = self.rng
        if name == "sink":
            own, other = reversed(OWN) if self.totals else OWN
            return rng.choice([own] * 12 + [other] * 3 + HIDDEN * 2 + ["third"]) if not odd else self.odd_text()
        if odd:
            return self.odd_text()
        if name == "gid" or name == "gids":
            return self.gid()
        if name in ("fact", "ingest"):
            return "fuzz.%s_%d" % (name, rng.randrange(4))
        if name in ("job", "writer", "source"):
            return rng.choice(NAMES[:6])
        if name in ("mode", "late_policy", "on_bad_event", "resolution", "kind"):
            return rng.choice(WORDS)
        if name == "secret":
            return rng.choice(self.secrets + ["%032x" % rng.getrandbits(128)])
        if name == "group_key":
            return rng.choice(["", "web", "app", "g%d" % rng.randrange(50)])
        return "%s-%d" % (name[:2], rng.randrange(300))

    def odd_text(self):
        rng = self.rng
        dice = rng.random()
        if dice < 0.06:
            return rng.choice(RAW) if self.raw or dice < 0.005 else "ÿ"
        if dice < 0.3:
            return rng.choice(HIDDEN + OWN + NAMES + WORDS)
        if dice < 0.4:
            return self.gid()
        if dice < 0.5:
            return "".join(chr(rng.choice([rng.randrange(1, 128), rng.randrange(160, 0xd7ff)]))
                           for _ in range(rng.randrange(1, 40)))
        text = rng.choice(TEXTS)
        return text if len(text) < 5000 or rng.random() < 0.05 else text[:200]

    def gid(self):
        """A gid that there is or was, or one with a character that is another."""
        gid = self.rng.choice(self.gids)
        if gid and self.rng.random() < 0.3:
            at = self.rng.randrange(len(gid))
            gid = gid[:at] + self.rng.choice("0123456789abcdef:-") + gid[at + 1:]
        return gid

    def time(self, name, odd):
        rng = self.rng
        if odd:
            return rng.choice(TIMES + ["2024-03-%02d %02d:%02d:59.999999+00"
                                       % (rng.randrange(1, 32), rng.randrange(24), rng.randrange(60))])
        second = 0 if name == "minute" else rng.randrange(60)
        return "2024-03-01 %02d:%02d:%02d+00" % (rng.randrange(10, 14), rng.randrange(60), second)

    def number(self, name, odd):
        rng = self.rng
        if odd:
            return rng.choice(NUMBERS + ["%de%d" % (rng.randrange(-99, 99), rng.randrange(-200, 200))])
        return "%.2f" % (rng.randrange(-1000, 100000) / 100)

    def bigint(self, name, odd):
        return str(self.rng.choice(BIGINTS) if odd else self.rng.choice([1, 1, 2, 3, self.rng.randrange(100)]))

    def integer(self, name, odd):
        return str(self.rng.choice([0, -1, 2**31 - 1, -2**31, 2**31]) if odd else self.rng.randrange(8))

    def interval(self, name, odd):
        return self.rng.choice(INTERVALS if odd else
                               {"bucket": ["1 minute", "1 hour", "1 second"], "max_future": ["5 minutes", "0", "1 day"],
                                "retain": ["0", "400 days", "1000 days"]}.get(name, ["1 day", "2 hours", "100 days"]))

    def json(self, name, odd):
        if odd:
            return self.rng.choice(JSON)
        return "[%s]" % ", ".join(
            '{"order_id": "%s", "event_id": "%s", "event_time": "%s", "amount": %s}'
            % (self.text("order_id", False), self.text("event_id", False), self.time("event_time", False),
               self.number("amount", False)) for _ in range(self.rng.randrange(6)))

    def relation(self, name, odd):
        return self.rng.choice(RELATIONS if odd else self.own_tables * 9 + self.tables or ["0"])

    def tid(self, name, odd):
        return self.rng.choice(TIDS)

    def bytes(self, name, odd):
        if self.letters and not odd:
            return self.rng.choice(self.letters)
        return "\\x" + "%x" % self.rng.getrandbits(8 * self.rng.choice([1, 16, 32, 500]) - 1 | 1) if odd \
            else "\\x%032x" % self.rng.getrandbits(128)

    # -- arrays ----------------------------------------------------------------

    def new_call(self, totals):
        """Choose how long the arrays of the next call are; is it one that sets totals?"""
        self.totals = totals
        dice = self.rng.random()
        self.length = (self.rng.randrange(5) if dice < 0.88 else self.rng.randrange(5, 60) if dice < 0.98 else
                       self.rng.randrange(60, 600) if dice < 0.996 else self.rng.randrange(2000, 30000))

    def array(self, name, type, mood):
        rng = self.rng
        element = type[:-2]
        n = self.length
        if mood == "odd":
            kind = rng.randrange(10)
            if kind == 0:
                return "'{}'::" + type
            if kind == 1:                           # ragged, or of several dimensions
                return rng.choice(["'{{1,2},{3}}'::", "'{{1},{2}}'::", "'{{{1}}}'::", "'{{},{}}'::", "'{1,{2}}'::",
                                   "'[0:0][5:5]={{1}}'::", "'{{NULL}}'::"]) + type
            if kind == 2:                           # of other bounds
                return "'[%d:%d]={%s}'::%s" % (7, 6 + max(n, 1), ",".join(["1"] * max(n, 1)), type)
            if kind == 3:
                n = rng.randrange(8)
            if kind == 4:
                return "array_fill(NULL::%s, ARRAY[%d])" % (element, n)
            if kind == 5:                           # one that is built, not read
                return "array_append(%s, NULL)" % self.array(name, type, "good")
        if n > 60:
            return self.long_array(name, element, n)
        values = []
        for _ in range(n):
            one = "odd" if mood == "odd" and rng.random() < 0.4 else "good"
            value = None if one == "odd" and rng.random() < 0.2 else self.scalar(name, element, one)
            values.append("NULL" if value is None else literal(value))
        return "ARRAY[%s]::%s" % (", ".join(values), type)

    def long_array(self, name, element, n):
        value = {"text": "'%s-' || i %% %d" % (name[:2], self.rng.choice([3, 1000, 100000])),
                 "timestamp with time zone": "'2024-03-01 10:00+00'::timestamptz + i %% %d * interval '1 minute'"
                 % self.rng.choice([1, 300, 5000]),
                 "numeric": "i / 100.0"}.get(element, "(i %% %d)::%s" % (self.rng.choice([1, 1000]), element))
        return "(SELECT array_agg(%s) FROM generate_series(1, %d) AS i)" % (value, n)
