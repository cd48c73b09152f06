"""Plays faults on a server that Prometheus and both exporters watch.

    faults.py FOLDER PORT

FOLDER has the server in cluster/ and the kit in rules/; run makes it. A fault is
played until its alerts have fired, by what either exporter says, and taken back;
then they must go. What lasts minutes in the rules lasts seconds here. The last
line is "N passed, N failed".
"""
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

import psycopg2
import yaml

FOLDER, PORT = sys.argv[1], int(sys.argv[2])
HERE = os.path.dirname(os.path.abspath(__file__))
CLUSTER = FOLDER + "/cluster"
JOBS = ("postgres_exporter", "sql_exporter")
EXPORTER_PORT = dict(zip(JOBS, (PORT + 1, PORT + 2)))
PROMETHEUS = "127.0.0.1:%d" % (PORT + 3)
PATIENCE = 90
SHORTER = ((r"\[\d+m\]", "[15s]"), (r"for: \d+m", "for: 1s"), (r"> 600\b", "> 4"), (r"> 900\b", "> 20"),
           (r"> 86400\b", "> 5"))
SINKS = {
    "orders": "on_bad_event => 'reject'",
    "clock": "dedup_window => '1 minute'",
    "held": "dedup_window => '5 seconds'",
    "still": "",
    "old": "dedup_window => '10 seconds', retain => '1 minute', bucket => '1 second', late_policy => 'apply'",
    "broken": "",
    "unmarked": "",
    "failing": "",
    "full": "",
    "more": "",
}

passed = failed = 0


def result(what, problem):
    """Counts; a problem that isn't empty is shown."""
    global passed, failed
    if problem:
        failed += 1
        print("%s ... FAILED\n    %s" % (what, problem), flush=True)
    else:
        passed += 1
        print("%s ... ok" % what, flush=True)


def wait_until(what, condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError("waited in vain until " + what)
        time.sleep(0.2)


def connect(user="postgres", database="postgres"):
    conn = psycopg2.connect(host=CLUSTER, port=PORT, user=user, dbname=database)
    conn.autocommit = True
    return conn


def run(conn, sql, args=None):
    with conn.cursor() as cursor:
        cursor.execute(sql, args)
        return cursor.fetchall() if cursor.description else None


def value(sql, args=None):
    """The first value of a statement, in a connection of its own."""
    conn = connect()
    try:
        rows = run(conn, sql, args)
        return rows[0][0] if rows else None
    finally:
        conn.close()


def restart_server():
    for function in ("cluster_stop", "cluster_start"):
        subprocess.run(["bash", "-c", '. "$0/../lib.sh"; "$@"', HERE, function, CLUSTER],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Traffic(threading.Thread):
    """Events that never end, for the sinks that are flowing, and empty batches of writers."""

    def __init__(self):
        super().__init__(daemon=True)
        self.flowing = set()
        self.batches = {}           # epochs of the writers that commit empty batches, by sink
        self.lock = threading.Lock()
        self.number = 0

    def run(self):
        conn = None
        while True:
            with self.lock:
                try:
                    conn = conn or connect()
                    self.send(conn)
                except psycopg2.Error:
                    # the server is just being restarted
                    conn = None
            time.sleep(0.2)

    def send(self, conn):
        self.number += 1
        for sink in self.flowing:
            run(conn, "SELECT revenue_sink.apply(%s, %s, 'event', clock_timestamp(), 1)",
                (sink, "order-%d" % self.number))
        for sink, epoch in self.batches.items():
            run(conn, "BEGIN")
            run(conn, "SELECT revenue_sink.begin_batch(%s, 'job', 'writer', %s, %s)", (sink, epoch, self.number))
            run(conn, "COMMIT")

    def flow(self, *sinks):
        """Let events come to these sinks, and to no others."""
        with self.lock:
            self.flowing = set(sinks)


class Program:
    """An exporter or Prometheus."""

    def __init__(self, name, args, **env):
        self.name, self.args, self.env = name, args, env
        self.process = None

    def start(self):
        with open("%s/%s.log" % (FOLDER, self.name), "ab") as log:
            self.process = subprocess.Popen(self.args, env={**os.environ, **self.env}, stdout=log, stderr=log)

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
            self.process = None


def replace_in(name, changes):
    path = "%s/rules/%s" % (FOLDER, name)
    with open(path, encoding="utf8") as file:
        text = file.read()
    for old, new in changes:
        text, n = re.subn(old, new, text)
        if n == 0:
            raise RuntimeError("%s has no %s" % (name, old))
    with open(path, "w", encoding="utf8") as file:
        file.write(text)


def programs():
    replace_in("alerts.yml", SHORTER)
    replace_in("prometheus.yml", [(r"_interval: 15s", "_interval: 1s"),
                                  ("localhost:9187", "127.0.0.1:%d" % EXPORTER_PORT[JOBS[0]]),
                                  ("localhost:9237", "127.0.0.1:%d" % EXPORTER_PORT[JOBS[1]])])
    # a connection for each database
    replace_in("sql_exporter.yml", [(r'( *- )"postgres://.*\n', "".join(
        r'\1"postgres://monitor@/%s?host=%s&port=%d&sslmode=disable"' % (database, CLUSTER, PORT) + "\n"
        for database in ("postgres", "second")))])
    return {
        JOBS[0]: Program(JOBS[0], ["prometheus-postgres-exporter",
                                   "--extend.query-path=%s/rules/postgres_exporter.yml" % FOLDER,
                                   "--auto-discover-databases", "--include-databases=postgres,second",
                                   "--web.listen-address=127.0.0.1:%d" % EXPORTER_PORT[JOBS[0]]],
                         DATA_SOURCE_NAME="user=monitor host=%s port=%d dbname=postgres sslmode=disable"
                         % (CLUSTER, PORT)),
        JOBS[1]: Program(JOBS[1], ["prometheus-sql-exporter", "-config.file=%s/rules/sql_exporter.yml" % FOLDER,
                                   "-web.listen-address=127.0.0.1:%d" % EXPORTER_PORT[JOBS[1]]]),
        "prometheus": Program("prometheus", ["prometheus", "--config.file=%s/rules/prometheus.yml" % FOLDER,
                                             "--storage.tsdb.path=%s/prometheus" % FOLDER,
                                             "--web.listen-address=" + PROMETHEUS]),
    }


def ask(path, **parameters):
    url = "http://%s/api/v1/%s?%s" % (PROMETHEUS, path, urllib.parse.urlencode(parameters))
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)["data"]


def query(expr):
    return ask("query", query=expr)["result"]


def firing():
    """The alerts that fire: {(name, sink or ""): jobs}"""
    alerts = {}
    for alert in ask("alerts")["alerts"]:
        if alert["state"] == "firing":
            labels = alert["labels"]
            alerts.setdefault((labels["alertname"], labels.get("sink", "")), set()).add(labels.get("job", ""))
    return alerts


def says(alerts):
    return ", ".join(sorted(("%s of %s" % (name, sink)) if sink else name for name, sink in alerts)) or "none"


def play(what, expected, begin, end, tolerated=()):
    """Play a fault until all of the expected alerts have fired, and take it back."""
    missing = {alert: set(JOBS) if alert[0] != "RevenueSinkUnwatched" else {""} for alert in expected}
    others = set()

    def fired():
        for alert, jobs in firing().items():
            if alert in missing:
                missing[alert] -= jobs
            elif alert not in tolerated:
                others.add(alert)
        return not any(missing.values())

    try:
        begin()
        wait_until("alerts fire", fired)
        problem = ""
    except RuntimeError:
        problem = "not seen: " + "; ".join("%s by %s" % (says([alert]), ", ".join(sorted(jobs)))
                                           for alert, jobs in missing.items() if jobs)
    result("%s: the alerts fire" % what, problem)
    result("%s: no other alerts fire" % what, says(others) if others else "")
    end()
    try:
        wait_until("alerts go", lambda: not firing())
        problem = ""
    except RuntimeError:
        problem = "still there: " + says(firing())
    result("%s: the alerts go" % what, problem)


# ----------------------------------------------------------------------
# What isn't played

def check_queries():
    """Both exporters have the same queries, which a role of pg_monitor alone may run."""
    with open(FOLDER + "/rules/postgres_exporter.yml", encoding="utf8") as file:
        one = yaml.safe_load(file)
    with open(FOLDER + "/rules/sql_exporter.yml", encoding="utf8") as file:
        other = {q["name"]: q for q in yaml.safe_load(file)["jobs"][0]["queries"]}
    conn = connect("monitor")
    roles = run(conn, "SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid"
                " WHERE m.member = 'monitor'::regrole")
    may = run(conn, "SELECT bool_or(has_table_privilege(fact, 'SELECT')) FROM unnest(%s::regclass[]) fact",
              ([sink + "_fact" for sink in SINKS],))
    result("the role is a member of pg_monitor, and may read no sink",
           "" if roles == [("pg_monitor",)] and may == [(False,)] else "%s, %s" % (roles, may))
    result("both exporters have the same queries", "" if one.keys() == other.keys() else "not the same names")
    for name, entry in one.items():
        labels = [key for m in entry["metrics"] for key in m if m[key]["usage"] == "LABEL"]
        values = [key for m in entry["metrics"] for key in m if m[key]["usage"] != "LABEL"]
        problem = ""
        if entry["query"] != other[name]["query"] or (labels, values) != (other[name]["labels"], other[name]["values"]):
            problem = "the exporters have different queries or columns"
        try:
            with conn.cursor() as cursor:
                cursor.execute(entry["query"])
                rows = [dict(zip((c.name for c in cursor.description), row)) for row in cursor]
        except psycopg2.Error as error:
            problem, rows = str(error), []
        if not problem and set(labels + values) != set(rows[0] if rows else ()):
            problem = "other columns than the file says, or no rows"
        if not problem and not all(isinstance(row[key], float) for row in rows for key in values):
            problem = "a value is no float8"
        if not problem and name == "revenue_sink" and {row["sink"] for row in rows} != set(SINKS):
            problem = "not all sinks are there"
        result("query %s, by a role of pg_monitor" % name, problem)
    conn.close()


def check_figures():
    """What either exporter says is what the views say."""
    for job in JOBS:
        low = value("SELECT applied FROM revenue_sink.stat_sink WHERE sink = 'orders'")
        wait_until("figures of %s are fresh" % job, lambda: float(
            query('revenue_sink_applied_total{job="%s",sink="orders"}' % job)[0]["value"][1]) >= low)
        got = {(m["metric"]["datname"], m["metric"]["sink"])
               for m in query('revenue_sink_in_order{job="%s"} == 1' % job)}
        result("%s brings the figures of all sinks of both databases" % job,
               "" if got == {("postgres", sink) for sink in SINKS} | {("second", "other")} else str(got))


def check_dashboard():
    with open(FOLDER + "/rules/dashboard.json", encoding="utf8") as file:
        panels = json.load(file)["panels"]
    problems, n = [], 0
    for panel in panels:
        for target in panel["targets"]:
            expr = target["expr"].replace("$__rate_interval", "15s").replace("$datname", ".*").replace("$sink", ".*")
            n += 1
            if "$" in expr or not query(expr):
                problems.append("%s: %s" % (panel["title"], expr))
    result("all %d queries of the dashboard have an answer" % n, "\n    ".join(problems))


# ----------------------------------------------------------------------
# The faults

def apply(sink, order, moment, amount=1, conn=None):
    sql, args = ("SELECT revenue_sink.apply(%s, %s, 'event', clock_timestamp() + %s::interval, %s)",
                 (sink, order, moment, amount))
    return run(conn, sql, args)[0][0] if conn else value(sql, args)


class Held:
    """Prepared transactions that nobody finishes; one is a batch, for which a deferred event waits."""

    def begin(self):
        conn = connect()
        epoch = run(conn, "CALL revenue_sink.recover('held', 'job', NULL)")[0][0]
        run(conn, "BEGIN")
        run(conn, "SELECT revenue_sink.begin_batch('held', 'job', 'writer', %s, 1)", (epoch,))
        moment = run(conn, "SELECT clock_timestamp()")[0][0]
        run(conn, "SELECT revenue_sink.apply('held', 'held', 'event', %s, 1)", (moment,))
        self.gid = run(conn, "SELECT revenue_sink.pre_commit('held')")[0][0]
        run(conn, "PREPARE TRANSACTION %s", (self.gid,))
        # another copy of its event has to wait
        run(conn, "SELECT revenue_sink.apply('held', 'held', 'event', %s, 1)", (moment,))
        for number in range(4):
            run(conn, "BEGIN")
            run(conn, "PREPARE TRANSACTION 'other-%d'" % number)
        conn.close()

    def end(self):
        conn = connect()
        run(conn, "CALL revenue_sink.rollback_prepared(%s)", (self.gid,))
        for number in range(4):
            run(conn, "ROLLBACK PREPARED 'other-%d'" % number)
        conn.close()


class Launcher:
    """The launcher hangs, so that a worker that has ended doesn't come back."""

    def begin(self):
        self.pid = value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'revenue_sink launcher'")
        os.kill(self.pid, signal.SIGSTOP)
        value("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'revenue_sink worker'")

    def end(self):
        os.kill(self.pid, signal.SIGCONT)


def wait_until_merged(which):
    wait_until("all is merged", lambda: value(
        "SELECT sum(unmerged_deltas) = 0 FROM revenue_sink.stat_sink WHERE " + which))


class LostTable:
    """A table of the sink is gone, as after a restore that has left it out."""

    def begin(self):
        self.number = value("SELECT id FROM revenue_sink.sink_catalog WHERE name = 'broken'")
        value("ALTER TABLE revenue_sink.filter_%d RENAME TO filter_lost" % self.number)

    def end(self):
        value("ALTER TABLE revenue_sink.filter_lost RENAME TO filter_%d" % self.number)


class LostTrigger:
    """A trigger of the ingest view is gone, and so the sink has no ingest view any more."""

    def begin(self):
        value("DROP TRIGGER revenue_sink_row ON unmarked_in")

    def end(self):
        value("SELECT revenue_sink.adopt_sink('unmarked')")


class FailingWorker:
    """The worker can't merge the deltas of a sink."""

    def begin(self):
        self.total = value("SELECT 'revenue_sink.total_' || id FROM revenue_sink.sink_catalog WHERE name = 'failing'")
        value("ALTER TABLE %s ADD CONSTRAINT planted CHECK (false) NOT VALID" % self.total)
        traffic.flow(*traffic.flowing, "failing")

    def end(self):
        value("ALTER TABLE %s DROP CONSTRAINT planted" % self.total)


def resolve_letters():
    value("SELECT count(revenue_sink.resolve(sink, 'discard', letters)) FROM (SELECT sink, array_agg(letter) AS letters"
          " FROM revenue_sink.dead_letter WHERE resolution IS NULL GROUP BY sink) AS d")


def fast_clock():
    apply("clock", "ahead", "4 minutes")


def conflict():
    conn = connect()
    moment = run(conn, "SELECT clock_timestamp()")[0][0]
    for amount in (1, 2):
        run(conn, "SELECT revenue_sink.apply('orders', 'two amounts', 'event', %s, %s)", (moment, amount))
    conn.close()


def bad_events():
    apply("orders", "bad", "0", "NaN")


def too_late_to_keep():
    """Late events whose bucket is removed before they commit."""
    traffic.flow(*(traffic.flowing - {"old"}))
    conn = connect()
    run(conn, "BEGIN")
    apply("old", "late", "-30 seconds", conn=conn)
    apply("old", "ahead", "200 seconds")
    wait_until("the bucket is removed", lambda: value(
        "SELECT retained_from > now() FROM revenue_sink.stat_sink WHERE sink = 'old'"))
    run(conn, "COMMIT")
    conn.close()


def silent_writer():
    conn = connect()
    epoch = run(conn, "CALL revenue_sink.recover('still', 'job', NULL)")[0][0]
    run(conn, "BEGIN")
    run(conn, "SELECT revenue_sink.begin_batch('still', 'job', 'writer', %s, 0)", (epoch,))
    apply("still", "of the writer", "0", conn=conn)
    run(conn, "COMMIT")
    conn.close()
    with traffic.lock:
        traffic.batches["still"] = epoch


def many_faults():
    held, lost, unmarked, failing = Held(), LostTable(), LostTrigger(), FailingWorker()

    def begin():
        held.begin()
        lost.begin()
        unmarked.begin()
        failing.begin()
        fast_clock()
        conflict()
        bad_events()
        too_late_to_keep()
        silent_writer()

    def end():
        traffic.flow("orders", "held", "still")
        with traffic.lock:
            traffic.batches.clear()
        held.end()
        lost.end()
        unmarked.end()
        failing.end()
        resolve_letters()

    play("a held batch, a fast clock, bad and conflicting events that nobody resolves,"
         " a lost table, a lost trigger, a silent writer, a worker that fails", {
        ("RevenueSinkInDoubt", "held"), ("RevenueSinkDeferredWaiting", "held"), ("RevenueSinkHorizonStalled", "held"), ("RevenueSinkPreparedNearLimit", ""),
        ("RevenueSinkLate", "clock"), ("RevenueSinkConflict", "orders"), ("RevenueSinkRejected", "orders"),
        ("RevenueSinkUnresolved", "clock"), ("RevenueSinkUnresolved", "orders"),
        ("RevenueSinkDiscarded", "old"), ("RevenueSinkNotInOrder", "broken"), ("RevenueSinkNotInOrder", "unmarked"),
        ("RevenueSinkWatermarkStalled", "still"),
        ("RevenueSinkWorkerFailing", "failing"), ("RevenueSinkMergeBehind", "failing"),
        ("RevenueSinkWatermarkStalled", "failing"),
    }, begin, end)


def no_worker():
    launcher = Launcher()
    traffic.flow("orders")
    wait_until_merged("sink <> 'orders'")
    play("a worker that is gone", {
        ("RevenueSinkWorkerGone", ""), ("RevenueSinkMergeBehind", "orders"), ("RevenueSinkWatermarkStalled", "orders"),
    }, launcher.begin, launcher.end)


def no_places():
    """After a restart without places for workers nobody builds the indexes."""

    def begin():
        value("ALTER SYSTEM SET max_worker_processes = 0")
        restart_server()

    def end():
        value("ALTER SYSTEM RESET max_worker_processes")
        restart_server()

    traffic.flow()
    wait_until_merged("true")
    play("a restart without places for workers",
         {("RevenueSinkWorkerGone", "")} | {("RevenueSinkIndexBuilding", sink) for sink in [*SINKS, "other"]},
         begin, end, tolerated={("RevenueSinkUnwatched", "")})


def full_memory():
    """One transaction has more events of two sinks than there is memory for, and doesn't end."""
    conn = connect()
    sinks = ("full", "more")

    def send(name, n):
        for sink in sinks:
            run(conn, "SELECT revenue_sink.apply(%s, array_agg(%s || i), array_agg('event-' || i),"
                " array_agg(now() + i * interval '1 microsecond'), array_agg(1.0)) FROM generate_series(1, %s) i",
                (sink, name, n))

    def begin():
        run(conn, "BEGIN")
        send("held-", 600000)

    def end():
        """As events go on coming, the worker seals what is older than they are."""
        run(conn, "COMMIT")
        for number in range(20):
            send("order-%d-" % number, 10000)
            if value("SELECT bool_and(index_state = 'built') FROM revenue_sink.stat_sink WHERE sink = ANY (%s)",
                     (list(sinks),)):
                break
            time.sleep(1)
        conn.close()

    play("a transaction with more events than the memory holds",
         {("RevenueSinkOverflowed", sink) for sink in sinks} | {("RevenueSinkPoolNearlyFull", "")}, begin, end)


def no_exporters():
    def begin():
        for job in JOBS:
            program[job].stop()

    def end():
        for job in JOBS:
            program[job].start()

    traffic.flow("orders")
    play("exporters that are gone", {("RevenueSinkUnwatched", "")}, begin, end)


def set_up():
    conn = connect()
    run(conn, "CREATE EXTENSION revenue_sink; CREATE ROLE monitor LOGIN; GRANT pg_monitor TO monitor")
    for sink, settings in SINKS.items():
        run(conn, "SELECT revenue_sink.create_sink('%s', '%s_fact', '%s_in'%s)"
            % (sink, sink, sink, settings and ", " + settings))
    run(conn, "CREATE DATABASE second")
    conn.close()
    conn = connect(database="second")
    run(conn, "CREATE EXTENSION revenue_sink; SELECT revenue_sink.create_sink('other')")
    conn.close()


program = programs()
traffic = Traffic()
try:
    set_up()
    traffic.flow("orders", "clock", "held", "still", "old")
    traffic.start()
    value("CALL revenue_sink.open_writer('orders', 'job', 'writer')")
    check_queries()
    for one in program.values():
        one.start()

    def all_is_watched():
        try:
            return len(query('count_over_time(revenue_sink_applied_total{sink="orders"}[15s]) > 12')) == len(JOBS)
        except OSError:
            return False

    wait_until("Prometheus has figures of both exporters", all_is_watched)
    result("no alert fires while all is well", says(firing()) if firing() else "")
    check_figures()
    many_faults()
    check_dashboard()
    no_worker()
    no_places()
    full_memory()
    no_exporters()
except Exception as error:      # so that the count comes, whatever happens
    result("the faults are played to their end", repr(error))
finally:
    for one in program.values():
        one.stop()
print("%d passed, %d failed" % (passed, failed))
sys.exit(failed > 0)
