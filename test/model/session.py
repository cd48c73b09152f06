"""A connection with its transaction, and the log of what was said on it."""
import io

import psycopg2


class Mismatch(Exception):
    """The extension and the model differ."""


class Serialization(Exception):
    """A transaction in SERIALIZABLE was refused, as any may be."""


class Log(list):
    """Statements with session numbers: read from the top it can be replayed."""

    def say(self, session, text):
        self.append("s%s: %s" % (session, text if len(text) < 6000 else text[:6000] + " ..."))


class Session:
    # No call waits for another transaction: whatever waits has failed.
    OPTIONS = "-c lock_timeout=1s -c statement_timeout=20s -c timezone=UTC -c client_min_messages=warning"
    # But maintenance may have to wait until the worker or autovacuum has finished.
    PATIENT = OPTIONS + " -c lock_timeout=20s"

    def __init__(self, dsn, number, options=OPTIONS):
        self.dsn = dsn
        self.number = number
        self.options = options
        self.log = Log()
        self.tx = None
        self.fenced = None          # None, or how its transaction's end is known
        self.connect()

    def connect(self):
        self.conn = psycopg2.connect(self.dsn, options=self.options)
        self.conn.autocommit = True
        self.cur = self.conn.cursor()

    def close(self):
        self.conn.close()

    def send(self, sql, params=(), copy=None):
        """Run it; returns rows, and [] where there are none."""
        text = self.cur.mogrify(sql, params).decode() if params else sql
        self.log.say(self.number, text if copy is None else text + "\n" + copy + "\\.")
        if copy is not None:
            self.cur.copy_expert(text, io.StringIO(copy))
        else:
            self.cur.execute(text)
        return self.cur.fetchall() if self.cur.description else []

    def run(self, sql, params=(), copy=None, error=None):
        """
        Run it and return the rows. error, if given, says by the SQLSTATE whether
        that is the error which must come; the answer is then None.
        """
        try:
            rows = self.send(sql, params, copy)
        except psycopg2.Error as e:
            self.log.say(self.number, "-- %s %s" % (e.pgcode, str(e).strip().replace("\n", " | ")))
            if self.conn.closed:
                raise Mismatch("the connection was lost: %s" % e)
            if e.pgcode == "40001" and self.tx and self.tx.isolation == "SERIALIZABLE":
                raise Serialization
            if error is not None and error(e.pgcode):
                return None
            raise Mismatch("unexpected error %s: %s" % (e.pgcode, str(e).strip()))
        if error is not None:
            raise Mismatch("expected an error, but got %r" % (rows,))
        return rows

    def try_commit(self):
        """COMMIT a transaction that was fenced; did it commit after all?"""
        try:
            self.send("COMMIT")
            return self.cur.statusmessage == "COMMIT"
        except psycopg2.Error as e:
            self.log.say(self.number, "-- %s %s" % (e.pgcode, str(e).strip().replace("\n", " | ")))
            return False
        finally:
            if self.conn.closed:
                self.connect()
            else:
                self.send("ROLLBACK")
