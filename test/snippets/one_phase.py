#!/usr/bin/python3
"""A processor that writes to revenue_sink, one commit a batch.

    one_phase.py DSN TOPIC [--replay]

The topic is a CSV file of order_id,event_id,event_time,amount,group_key; it has
one partition, and the offset of an event is the number of its line, from 0. So
that all of it can be watched in one place, nothing here is specific to a
broker: where this program slices a list, a consumer would poll.

Runs with psycopg 3 and psycopg 2. LOSE_ANSWER=3 drops the connection right
after the COMMIT of batch 3, before its answer is looked at.
"""
import csv
import os
import sys
import time

try:
    import psycopg
except ImportError:
    import psycopg2 as psycopg

SINK, JOB, WRITER, SOURCE = "orders", "billing", "consumer-1", "payments"
PARTITION = 0
BATCH = 200                 # events a transaction
GIVE_UP = 60                # seconds without an answer

lose_answer = int(os.environ.get("LOSE_ANSWER", "0"))


def connect(dsn):
    """Autocommit: BEGIN and COMMIT are ours, and CALL must stand alone."""
    conn = psycopg.connect(dsn)
    conn.autocommit = True
    return conn


def query(conn, sql, args=()):
    with conn.cursor() as cursor:
        cursor.execute(sql, args)
        return cursor.fetchall() if cursor.description else None


def may_repeat(conn, error):
    """Is it unknown, or too early, rather than wrong?"""
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or ""
    return conn.closed or state == "40001" or state.startswith(("08", "57P"))


def send(conn, epoch, number, events, next_offset):
    """One batch in one transaction; the six counts, or None: it was there."""
    counts = None
    query(conn, "BEGIN")
    if query(conn, "SELECT revenue_sink.begin_batch(%s, %s, %s, %s, %s)",
             (SINK, JOB, WRITER, epoch, number))[0][0]:
        order_id, event_id, event_time, amount, group_key = map(list, zip(*events))
        counts = query(conn, "SELECT * FROM revenue_sink.apply(%s, %s::text[], %s::text[],"
                       " %s::timestamptz[], %s::numeric[], %s::text[])",
                       (SINK, order_id, event_id, event_time, amount, group_key))[0]
        query(conn, "SELECT revenue_sink.store_offsets(%s, %s, %s::int[], %s::bigint[])",
              (SINK, SOURCE, [PARTITION], [next_offset]))
    query(conn, "COMMIT")
    return counts


def deliver(conn, dsn, *batch):
    """send() until there is an answer. Anything that isn't worth repeating is
    raised, the fencing error RS001 above all: a zombie must stop."""
    global lose_answer
    deadline = time.monotonic() + GIVE_UP
    while True:
        try:
            if conn.closed:
                conn = connect(dsn)
            counts = send(conn, *batch)
            if batch[1] == lose_answer:
                lose_answer = 0
                conn.close()
                continue
            return conn, counts
        except psycopg.Error as error:
            if not may_repeat(conn, error) or time.monotonic() > deadline:
                raise
            conn.close()            # rolls back what may be open
            time.sleep(0.1)         # a server that starts is asked again, gently


def main(dsn, topic, replay):
    with open(topic, newline="") as file:
        events = list(csv.reader(file))
    conn = connect(dsn)

    # a new incarnation: whatever its predecessor had open can't commit any more
    epoch = query(conn, "CALL revenue_sink.open_writer(%s, %s, %s)", (SINK, JOB, WRITER))[0][0]
    where = dict(query(conn, "SELECT partition, next_offset FROM revenue_sink.offsets(%s, %s)",
                       (SINK, SOURCE)))
    offset = 0 if replay else where.get(PARTITION, 0)
    print(f"epoch {epoch}, from offset {offset}")

    number = skipped = 0
    total = [0] * 6
    while offset < len(events):
        number += 1
        after = min(offset + BATCH, len(events))
        conn, counts = deliver(conn, dsn, epoch, number, events[offset:after], after)
        if counts is None:
            skipped += 1
        else:
            total = [a + b for a, b in zip(total, counts)]
        offset = after
    conn.close()
    print(f"{number} batches, {skipped} skipped; applied {total[0]}, duplicate {total[1]},"
          f" deferred {total[2]}, conflict {total[3]}, late {total[4]}, rejected {total[5]}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], "--replay" in sys.argv[3:])
