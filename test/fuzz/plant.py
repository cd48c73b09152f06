"""What a database has before the first call: two roles, and sinks of each of them."""

TOKEN = "Zq7Mark"               # stands in every text that only the role "other" may see
AMOUNT = "271828182845.91"
OFFSET = "314159265358"

ROLES = """
DO $do$ BEGIN
    CREATE ROLE fuzz LOGIN;
    CREATE ROLE other LOGIN;
EXCEPTION WHEN duplicate_object THEN NULL; END $do$"""

SCHEMAS = """
CREATE EXTENSION revenue_sink;
CREATE SCHEMA fuzz AUTHORIZATION fuzz;
CREATE SCHEMA other AUTHORIZATION other;
GRANT USAGE ON SCHEMA other TO PUBLIC"""

# The role's own functions and operators bear names that the extension's SQL uses. One that
# is called with the rights of somebody else says so. tells() shows whatever row it is given.
TRAPS = """
CREATE FUNCTION fuzz.trap() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    IF current_user <> 'fuzz' THEN RAISE EXCEPTION '{token} code of fuzz runs as %', current_user; END IF; END $$;
CREATE FUNCTION fuzz.tells(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN
    RAISE NOTICE 'told: %', $1; RETURN true; END $$;
CREATE FUNCTION fuzz.quote_ident(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
    PERFORM fuzz.trap(); RETURN pg_catalog.quote_ident($1); END $$;
CREATE FUNCTION fuzz.pg_get_userbyid(oid) RETURNS name LANGUAGE plpgsql AS $$ BEGIN
    PERFORM fuzz.trap(); RETURN pg_catalog.pg_get_userbyid($1); END $$;
CREATE FUNCTION fuzz.to_regclass(text) RETURNS regclass LANGUAGE plpgsql AS $$ BEGIN
    PERFORM fuzz.trap(); RETURN pg_catalog.to_regclass($1); END $$;
CREATE FUNCTION fuzz.nextval(regclass) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN
    PERFORM fuzz.trap(); RETURN 1; END $$;
CREATE FUNCTION fuzz.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN
    PERFORM fuzz.trap(); RETURN pg_catalog.now(); END $$;
CREATE FUNCTION fuzz.count() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN
    PERFORM fuzz.trap(); RETURN 0; END $$;
CREATE FUNCTION fuzz.same(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
    PERFORM fuzz.trap(); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
CREATE FUNCTION fuzz.same(integer, integer) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
    PERFORM fuzz.trap(); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
CREATE OPERATOR fuzz.= (LEFTARG = text, RIGHTARG = text, FUNCTION = fuzz.same);
CREATE OPERATOR fuzz.= (LEFTARG = integer, RIGHTARG = integer, FUNCTION = fuzz.same);
CREATE TABLE fuzz.plain (id bigint, name bigint);
CREATE TABLE fuzz.sink_catalog (id integer, name text);
CREATE TABLE fuzz.pg_class (oid oid, relname name)"""

TEMPORARY = "CREATE TEMP TABLE pg_class (oid oid, relname name); CREATE TEMP TABLE sink_catalog (id integer, name text)"

# A view of such a name may be there that CREATE OR REPLACE VIEW has made.
MAKE_OWN = {"own": """
DROP VIEW IF EXISTS fuzz.own_facts, fuzz.own_events;
SELECT revenue_sink.create_sink('own', 'fuzz.own_facts', 'fuzz.own_events', dedup_window => '2 hours',
    on_bad_event => 'reject')""", "own_totals": """
DROP VIEW IF EXISTS fuzz.total_facts, fuzz.total_events;
SELECT revenue_sink.create_sink('own_totals', 'fuzz.total_facts', 'fuzz.total_events', mode => 'totals')"""}

# Each string is a transaction, or a statement of its own.
HIDDEN = [
    """SELECT revenue_sink.create_sink('hidden', 'other.facts', 'other.events', dedup_window => '1000 days')""",
    """SELECT revenue_sink.create_sink('hidden_totals', 'other.total_facts', 'other.total_events', mode => 'totals')""",
    """SELECT revenue_sink.apply('hidden', '{token}-o' || i, '{token}-e', '2024-03-01 10:00+00', {amount}, '{token}-g')
        FROM generate_series(1, 20) AS i""",
    """SELECT revenue_sink.apply('hidden', '{token}-o1', '{token}-e', '2024-03-01 10:00+00', {amount} + 1)""",
    """SELECT revenue_sink.upsert('hidden_totals', '{{2024-03-01 10:00+00}}', '{{{amount}}}', '{{{token}}}', 1)""",
    """CALL revenue_sink.open_writer('hidden', '{token} job', '{token} writer', epoch => 7)""",
    """BEGIN;
    SELECT revenue_sink.begin_batch('hidden', '{token} job', '{token} writer', 7, 1);
    SELECT revenue_sink.apply('hidden', '{token}-b', '1', '2024-03-01 10:00+00', {amount});
    SELECT revenue_sink.store_offsets('hidden', '{token} topic', '{{0}}', '{{{offset}}}');
    COMMIT""",
    """BEGIN;
    SELECT revenue_sink.apply('hidden', '{token}-s', '1', '2024-03-01 10:00+00', {amount});
    PREPARE TRANSACTION 'settled'""",
    """SELECT revenue_sink.apply('hidden', '{token}-s', '1', '2024-03-01 10:00+00', {amount})""",
    """COMMIT PREPARED 'settled'""",
    # so that no round of the worker changes what stat_sink shows later
    """SELECT revenue_sink.merge('hidden')""",
    """SELECT revenue_sink.expire('hidden')""",
    """SELECT revenue_sink.resolve('hidden', 'discard', array_agg(letter), '{token} note')
        FROM revenue_sink.dead_letter WHERE sink = 'hidden'""",
    """SELECT revenue_sink.apply('hidden', '{token}-o2', '{token}-e', '2024-03-01 10:00+00', {amount} + 1)""",
    """BEGIN;
    SELECT revenue_sink.begin_batch('hidden', '{token} job', '{token} writer', 7, 2);
    SELECT revenue_sink.apply('hidden', '{token}-p', '1', '2024-03-01 10:00+00', {amount});
    SELECT revenue_sink.pre_commit('hidden') AS gid"""]
DEFERRED = """SELECT revenue_sink.apply('hidden', '{token}-p', '1', '2024-03-01 10:00+00', {amount})"""

# All that the role "other" sees of its sinks, but for what the worker may change at any time.
STATE = [
    "SELECT * FROM other.facts ORDER BY 1, 2", "SELECT * FROM other.total_facts ORDER BY 1, 2",
    "SELECT * FROM other.events",
    "SELECT * FROM revenue_sink.sink ORDER BY 1",
    "SELECT * FROM revenue_sink.dead_letter ORDER BY letter",
    "SELECT sink, order_id, event_id, amount, deferred_at FROM revenue_sink.deferred ORDER BY 2",
    "SELECT * FROM revenue_sink.settled ORDER BY 2",
    "SELECT sink, job, writer, epoch, opened_at, last_number FROM revenue_sink.writer",
    "SELECT sink, job, writer, epoch, number, gid, prepared_at, events, state FROM revenue_sink.prepared",
    "SELECT * FROM revenue_sink.offsets('hidden')",
    "SELECT applied, duplicate, deferred, conflict, late, rejected, watermark, seen_events FROM revenue_sink.stat_sink"
    " ORDER BY sink"]

# What nobody but the superuser, or "other", may ever see, as the server would print it.
SECRETS = """
SELECT unnest(ARRAY[encode(hash_key, 'hex'), encode(hash_key, 'escape')]) FROM revenue_sink.sink_catalog
UNION ALL SELECT encode(letter, 'hex') FROM revenue_sink.dead_letter_event
UNION ALL SELECT revenue::text FROM other.facts
UNION ALL SELECT encode(%s, 'hex')"""
ARRIVAL = "SELECT group_key FROM %s WHERE minute = '-infinity'"


def filled(text):
    return text.format(token=TOKEN, amount=AMOUNT, offset=OFFSET)


class Planted:
    """Makes all of the above. connect(user) gives a connection in autocommit."""

    def __init__(self, connect):
        admin = connect("postgres").cursor()
        admin.execute(ROLES)
        admin.execute(SCHEMAS)
        self.admin = admin
        self.other = connect("other").cursor()
        for statement in HIDDEN:
            self.other.execute(filled(statement))
        self.gid = self.other.fetchone()[0]
        self.other.execute("PREPARE TRANSACTION %s", (self.gid,))
        self.other.execute(filled(DEFERRED))
        fuzz = connect("fuzz").cursor()
        fuzz.execute(filled(TRAPS))
        self.make_own(fuzz)
        self.marks = self.learn_marks()
        self.before = self.state()

    def make_own(self, fuzz):
        """Make those of the role's own sinks that are gone."""
        fuzz.execute("SELECT sink FROM revenue_sink.sink WHERE sink IN ('own', 'own_totals')")
        there = [row[0] for row in fuzz.fetchall()]
        for name, statement in MAKE_OWN.items():
            if name not in there:
                fuzz.execute(statement)

    def learn_marks(self):
        self.admin.execute(SECRETS, (TOKEN,))
        marks = [TOKEN, AMOUNT.split(".")[0], OFFSET] + [row[0] for row in self.admin.fetchall()]
        for sink in ("hidden", "hidden_totals"):
            self.admin.execute("SELECT revenue_sink.relation_of(%s, 'delta')::text", (sink,))
            self.admin.execute(ARRIVAL % self.admin.fetchone()[0])
            marks += [row[0] for row in self.admin.fetchall()]
        return [mark for mark in marks if len(mark) > 6]

    def state(self):
        result = []
        for statement in STATE:
            self.other.execute(statement)
            result.append((statement, self.other.fetchall()))
        return result

    def differences(self):
        """What has changed of the other role's sinks."""
        return ["%s\n    was %r\n    is  %r" % (before[0], before[1], after[1])
                for before, after in zip(self.before, self.state()) if before != after]
