"""A server that is killed, and replaced by its standby.

Runs as the plain user that the servers belong to. Starting, stopping and
killing are those of test/lib.sh, beside this file.
"""

import os
import shutil
import signal
import subprocess
import time

import psycopg2

HERE = os.path.dirname(os.path.abspath(__file__))
PATIENCE = 60
DATABASE = "chaos"
PORT = 5560  # of the sockets' names
SETTINGS = ("fsync = off", "full_page_writes = off", "shared_buffers = 32MB", "max_connections = 60",
            "revenue_sink.dedup_memory = '16MB'", "revenue_sink.worker_interval = '100ms'",
            "autovacuum_naptime = 2s", "wal_keep_size = 64MB", "timezone = UTC")


def lib(function, *args):
    subprocess.run(["bash", "-c", '. "$0/lib.sh"; "$@"', HERE, function, *args],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_until(what, condition, patience=PATIENCE):
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError("waited in vain until " + what)
        time.sleep(0.01)


def state_of(pid):
    """The letter of a process's state; empty if there is none."""
    try:
        with open("/proc/%d/stat" % pid, encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def halt(pid):
    """Halt a process and see that it stands; false if it came to its end before."""
    try:
        os.kill(pid, signal.SIGSTOP)
    except ProcessLookupError:
        return False
    wait_until("process %d stands" % pid, lambda: state_of(pid) in ("T", "t", "Z", ""))
    return state_of(pid) in ("T", "t")


def kill_process(pid):
    """Processes are halted before they are killed, so that the signal ends them and nothing else."""
    if not halt(pid):
        return False
    os.kill(pid, signal.SIGKILL)
    return True


class Server:
    def __init__(self, directory):
        self.base, self.port, self.generation = directory, PORT, 0
        self.dir, self.next = directory + "/0", None
        self.halted = None  # walsender
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
        lib("cluster_new", self.dir, str(PORT), *SETTINGS)
        self.run("CREATE DATABASE " + DATABASE, database="postgres")
        self.run("CREATE EXTENSION revenue_sink")

    def discard(self):
        self.resume_halted()
        for place in (self.dir, self.next):
            if place and os.path.exists(place + "/data/postmaster.pid"):
                lib("cluster_stop", place, "immediate")

    def resume_halted(self):
        if self.halted and state_of(self.halted):
            os.kill(self.halted, signal.SIGCONT)
        self.halted = None

    def socket(self):
        return "%s/.s.PGSQL.%d" % (self.dir, self.port)

    def log(self):
        return self.dir + "/server.log"

    def connect(self, database=DATABASE):
        """A connection with autocommit; tries until the server is there."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                conn = psycopg2.connect(host=self.dir, port=self.port, user="postgres", dbname=database)
                conn.autocommit = True
                return conn
            except psycopg2.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def run(self, sql, *args, database=DATABASE):
        """Rows, if there are any. A lost connection repeats the SQL, which must allow that."""
        end = time.monotonic() + PATIENCE
        while True:
            conn = self.connect(database)
            try:
                with conn.cursor() as cursor:
                    cursor.execute(sql, args or None)
                    return cursor.fetchall() if cursor.description else []
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                if time.monotonic() > end:
                    raise
            finally:
                conn.close()

    # The faults. Each returns whether it could be carried out.

    def kill(self):
        lib("cluster_kill", self.dir)
        lib("cluster_start", self.dir)
        return True

    def stop_immediately(self):
        lib("cluster_stop", self.dir, "immediate")
        lib("cluster_start", self.dir)
        return True

    def worker(self):
        found = []

        def look():
            found[:] = self.run("SELECT pid FROM pg_stat_activity WHERE backend_type = 'revenue_sink worker'"
                                " AND datname = current_database()")
            return found

        wait_until("there is a worker", look)
        return found[0][0]

    def terminate(self, pid):
        return self.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s", pid) != []

    # The standby.

    def add_standby(self, synchronous):
        self.generation += 1
        self.next = "%s/%d" % (self.base, self.generation)
        os.mkdir(self.next)
        subprocess.run(["pg_basebackup", "-h", self.dir, "-p", str(self.port), "-U", "postgres", "-R",
                        "-c", "fast", "-X", "stream", "-D", self.next + "/data"], check=True,
                       stdout=subprocess.DEVNULL)
        with open(self.next + "/data/postgresql.conf", "a", encoding="utf-8") as file:
            file.write("unix_socket_directories = '%s'\n" % self.next)
        lib("cluster_start", self.next)
        if synchronous:
            self.run("ALTER SYSTEM SET synchronous_standby_names = '*'")
            self.run("SELECT pg_reload_conf()")
        wait_until("the standby streams", lambda: self.run(
            "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = %s",
            "sync" if synchronous else "async"))

    def cut_off(self):
        """From now on the standby receives nothing."""
        rows = self.run("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender'")
        if rows and halt(rows[0][0]):
            self.halted = rows[0][0]
        return self.halted is not None

    def promote(self):
        """The primary is killed, and the standby takes its place."""
        lib("cluster_kill", self.dir)
        self.halted = None
        subprocess.run(["pg_ctl", "-D", self.next + "/data", "promote", "-w", "-t", str(PATIENCE)],
                       check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(self.dir)
        self.dir, self.next = self.next, None
        return True

    def drop_standby(self):
        """A standby that nobody has promoted, or the traces of one that somebody has."""
        self.resume_halted()
        if self.next:
            self.run("ALTER SYSTEM RESET synchronous_standby_names")
            self.run("SELECT pg_reload_conf()")
            lib("cluster_stop", self.next, "immediate")
            shutil.rmtree(self.next)
            self.next = None
