"""Random statements: calls of all functions, of views and tables, and what stands around them."""
import json

from values import literal

# Of another role's sink they tell what the system catalogs tell, and that one may nothing.
HARMLESS = {"may_see", "may_watch", "may_dispose", "relation_of", "sink_problem"}

CATALOG = """
SELECT p.oid::regprocedure::text, p.proname, p.prokind = 'p',
    (SELECT json_agg(coalesce(p.proargnames[a.n], '') ORDER BY a.n)
        FROM generate_series(1, cardinality(coalesce(p.proallargtypes, p.proargtypes::oid[]))) AS a (n)
        WHERE coalesce(p.proargmodes[a.n], 'i') IN ('i', 'b', 'v')),
    (SELECT json_agg(format_type(t, NULL) ORDER BY n) FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS a (t, n)),
    p.pronargdefaults, has_function_privilege('fuzz', p.oid, 'EXECUTE')
FROM pg_proc AS p JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
    JOIN pg_extension AS e ON d.refobjid = e.oid AND e.extname = 'revenue_sink'
ORDER BY 1"""

RELATIONS = """
SELECT c.oid::regclass::text, c.relkind = 'v',
    (SELECT json_agg(quote_ident(attname) ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
FROM pg_class AS c WHERE c.relnamespace = 'revenue_sink'::regnamespace AND c.relkind IN ('v', 'r') ORDER BY 1"""

ISOLATIONS = ["", "", "", " ISOLATION LEVEL REPEATABLE READ", " ISOLATION LEVEL SERIALIZABLE", " READ ONLY",
              " ISOLATION LEVEL SERIALIZABLE READ ONLY"]
SETTINGS = ["search_path = fuzz, pg_catalog, revenue_sink", "search_path = pg_temp, fuzz, pg_catalog", "search_path = ''",
            "DateStyle = 'German'", "IntervalStyle = 'sql_standard'", "TimeZone = 'Pacific/Apia'", "TimeZone = 'UTC'",
            "standard_conforming_strings = off", "bytea_output = 'escape'", "transform_null_equals = on",
            "default_transaction_isolation = 'serializable'", "synchronous_commit = off", "row_security = off",
            "enable_indexscan = off", "work_mem = '64kB'", "client_min_messages = debug1", "extra_float_digits = -15",
            "default_tablespace = 'pg_default'", "jit = off", "statement_timeout = '3ms'", "constraint_exclusion = on"]


class Function:
    def __init__(self, row):
        self.signature, self.name, is_procedure, names, types, ndefaults, may_call = row
        self.is_procedure = is_procedure == "t"
        self.names = json.loads(names or "[]")
        self.types = json.loads(types or "[]")
        self.ndefaults = int(ndefaults)
        self.may_call = may_call == "t"
        self.calls = self.successes = 0


class Calls:
    """Makes statements for one database, whose catalogs the superuser's cursor has read."""

    def __init__(self, rng, values, cur):
        self.rng = rng
        self.values = values
        cur.execute(CATALOG)
        self.functions = [Function(row) for row in cur.fetchall()]
        cur.execute(RELATIONS)
        rows = cur.fetchall()
        self.views = [row for row in rows if row[1] == "t"]
        self.tables = [row for row in rows if row[1] == "f"]
        values.tables += [row[0] for row in self.tables]

    # -- functions -------------------------------------------------------------

    def function(self, name):
        return next(f for f in self.functions if f.name == name)

    def call(self, function=None):
        """A call of this function, or any. Returns the statement, the function, and the sink that it names."""
        rng = self.rng
        function = function or rng.choice(self.functions)
        self.values.new_call("version" in function.names)
        n = len(function.types)
        if rng.random() < 0.3:
            n -= rng.randrange(function.ndefaults + 1)
        mood = rng.choice(["good"] * 6 + ["one"] * 3 + ["all"])
        bad = rng.randrange(n) if n > 0 and mood == "one" else -1
        arguments = []
        for i in range(n):
            how = "good" if i != bad and mood != "all" else rng.choice(["odd", "odd", "wrong"])
            arguments.append(self.values.argument(function.names[i] if i < len(function.names) else "",
                                                  function.types[i], how))
        sink = next((a for name, a in zip(function.names, arguments) if name == "sink"), "")
        if rng.random() < 0.1 and all(function.names[:n]):
            arguments = ["%s => %s" % pair for pair in zip(function.names, arguments)]
        call = "revenue_sink.%s(%s)" % ('"check"' if function.name == "check" else function.name, ", ".join(arguments))
        return self.around(call, function), function, sink.split("'")[1] if sink.endswith("'::text") else ""

    def around(self, call, function):
        if function.is_procedure:
            return "CALL " + call
        dice = self.rng.random()
        if dice < 0.5:
            return "SELECT " + call
        if dice < 0.9:
            return "SELECT * FROM %s AS r" % call
        if dice < 0.92:
            return "SELECT %s FROM generate_series(1, 3)" % call
        if dice < 0.94:
            return "EXPLAIN (ANALYZE, VERBOSE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT " + call
        if dice < 0.96:
            return ("DO $do$ BEGIN PERFORM %s; RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN"
                    " PERFORM %s; END $do$" % (call, call))
        if dice < 0.98:
            return "COPY (SELECT %s) TO STDOUT" % call
        return "SELECT 1 WHERE (%s) IS NOT NULL OR fuzz.tells('x')" % call

    # -- views and tables --------------------------------------------------------

    def relation(self):
        """Reads, and tries to write, what the extension has; and the views of both roles."""
        rng = self.rng
        name, _, columns = rng.choice(rng.choice([self.views, self.tables]))
        owner = rng.choice(["fuzz.own_facts", "fuzz.own_events", "other.facts", "other.events", "fuzz.total_facts"])
        column = rng.choice(json.loads(columns))
        return rng.choice([
            "SELECT * FROM %s" % name,
            "SELECT * FROM %s WHERE fuzz.tells(%s::text)" % (name, column),
            "SELECT %s, count(*) FROM %s GROUP BY 1 ORDER BY 1 LIMIT 5" % (column, name),
            "EXPLAIN (ANALYZE, VERBOSE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT * FROM %s" % name,
            "DELETE FROM %s" % name,
            "UPDATE %s SET %s = %s" % (name, column, column),
            "INSERT INTO %s SELECT * FROM %s" % (name, name),
            "TRUNCATE %s" % name,
            "COPY %s TO STDOUT" % name,
            "LOCK TABLE %s IN ACCESS EXCLUSIVE MODE NOWAIT" % name,
            "ALTER TABLE %s DISABLE TRIGGER ALL" % name,
            "ANALYZE %s" % name,
            "SELECT * FROM pg_stats WHERE schemaname IN ('revenue_sink', 'other')",
            "SELECT * FROM %s" % owner,
            "SELECT * FROM %s WHERE fuzz.tells(to_jsonb(%s)::text)" % (owner, owner.split(".")[1]),
            "SELECT * FROM %s ORDER BY 1 DESC LIMIT 3" % owner,
            "DELETE FROM %s" % owner,
            "UPDATE %s SET group_key = 'x'" % owner,
            "CREATE TRIGGER mine INSTEAD OF INSERT ON %s FOR EACH ROW EXECUTE FUNCTION revenue_sink.ingest('1')" % owner,
            "CREATE TRIGGER mine AFTER INSERT ON fuzz.plain FOR EACH ROW EXECUTE FUNCTION revenue_sink.note_copy()",
            "CREATE OR REPLACE VIEW %s AS SELECT 1 AS minute" % owner])

    def insert(self):
        """INSERT into an ingest view, with whatever columns."""
        rng = self.rng
        events = [("order_id", "text"), ("event_id", "text"), ("event_time", "timestamp with time zone"),
                  ("amount", "numeric"), ("group_key", "text")]
        totals = [("minute", "timestamp with time zone"), ("group_key", "text"), ("revenue", "numeric"),
                  ("version", "bigint")]
        columns = totals if rng.random() < 0.25 else events
        view = rng.choice(["fuzz.total_events" if columns is totals else "fuzz.own_events"] * 8 + ["other.events"])
        rows = [", ".join(self.values.argument(name, type, "good" if rng.random() < 0.93 else "odd")
                          for name, type in columns) for _ in range(rng.randrange(1, 5))]
        return "INSERT INTO %s (%s) VALUES (%s)%s" % (
            view, ", ".join(name for name, _ in columns), "), (".join(rows),
            rng.choice([""] * 8 + [" ON CONFLICT DO NOTHING", " RETURNING *"]))

    # -- transactions --------------------------------------------------------------

    def transaction(self, inside, points):
        """"points" are the savepoints that there are."""
        rng = self.rng
        if not inside:
            if rng.random() < 0.3:
                return "SET " + rng.choice(SETTINGS) if rng.random() < 0.4 else "RESET ALL"
            return "BEGIN" + rng.choice(ISOLATIONS)
        gid = rng.choice(self.values.gids) if rng.random() < 0.7 else "g%d" % rng.randrange(10**6)
        choices = ["SAVEPOINT p%d" % rng.randrange(3)] * 4 + ["COMMIT"] * 4 + ["ROLLBACK"] * 2 + \
            ["PREPARE TRANSACTION " + literal(gid)] * 2 + ["SET LOCAL " + rng.choice(SETTINGS)]
        if points:
            point = rng.choice(points)
            choices += ["ROLLBACK TO " + point] * 4 + ["RELEASE " + point] * 2
        return rng.choice(choices)

    def after_error(self, points):
        """What a session says whose transaction has failed: seldom what is bound to fail."""
        if self.rng.random() < 0.1:
            return self.call()
        return self.rng.choice(["ROLLBACK TO " + point for point in points] or ["ROLLBACK"]), None, ""

    def statement(self, inside, points):
        """The next statement of a session. Returns it with the function and the sink, if it calls one."""
        dice = self.rng.random()
        if dice < 0.12 or (inside and dice < 0.2):
            return self.transaction(inside, points), None, ""
        if dice < 0.23:
            return self.relation(), None, ""
        if dice < 0.3:
            return self.insert(), None, ""
        return self.call()
