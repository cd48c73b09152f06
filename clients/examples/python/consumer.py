#!/usr/bin/python3
"""Kafka to revenue_sink, exactly once: confluent-kafka and psycopg 3.

    consumer.py INSTANCE

BOOTSTRAP, TOPIC and GROUP say what to read; PGHOST and so on, where to write. A
record is order_id,event_id,event_time,amount. The group is the job, and each
partition is a writer of it: so whoever is assigned a partition fences whoever had
it before.

The offsets that count are those in the sink, since they commit with the events.
Kafka is told none.
"""
import os
import sys
import time

import psycopg
from confluent_kafka import Consumer, KafkaException

SINK = "orders"
TOPIC, JOB, INSTANCE = os.environ["TOPIC"], os.environ["GROUP"], sys.argv[1]
BATCH = 500                 # records a round, at most
GIVE_UP = 60                # seconds without an answer


class Sink:
    def __init__(self):
        self.conn = None
        self.epochs = {}    # by partition
        self.number = 0

    def query(self, sql, *args):
        """Autocommit: BEGIN and COMMIT are ours, and CALL must stand alone.
        No prepared statements: a pooler may give each transaction another session."""
        if self.conn is None or self.conn.closed:
            self.conn = psycopg.connect(autocommit=True, prepare_threshold=None)
        cursor = self.conn.execute(sql, args)
        return cursor.fetchall() if cursor.description else None

    def repeat(self, work, *args):
        """work() until there is an answer, which is safe whatever became of the
        last one. What isn't worth repeating is raised, the fencing error RS001
        above all: a zombie must stop."""
        deadline = time.monotonic() + GIVE_UP
        while True:
            try:
                return work(*args)
            except psycopg.Error as error:
                state = error.sqlstate or "08"      # no state: no server
                if not (state == "40001" or state.startswith(("08", "57P"))) \
                        or time.monotonic() > deadline:
                    raise
                if self.conn:
                    self.conn.close()               # rolls back what may be open
                time.sleep(0.1)                     # a server that starts is asked again, gently

    def open(self, partition):
        """A new epoch for a partition: its former owner can't commit any more.
        Only then is it known where to go on."""
        self.epochs[partition] = self.query("CALL revenue_sink.open_writer(%s, %s, %s)",
                                            SINK, JOB, f"{TOPIC}-{partition}")[0][0]
        rows = self.query("SELECT next_offset FROM revenue_sink.offsets(%s, %s) WHERE partition = %s",
                          SINK, TOPIC, partition)
        return rows[0][0] if rows else 0

    def write(self, partition, messages):
        """One batch in one transaction. If it was there, its answer was lost."""
        self.query("BEGIN")
        if self.query("SELECT revenue_sink.begin_batch(%s, %s, %s, %s, %s)", SINK, JOB,
                      f"{TOPIC}-{partition}", self.epochs[partition], self.number)[0][0]:
            events = [message.value().decode().split(",") for message in messages]
            self.query("SELECT * FROM revenue_sink.apply(%s, %s::text[], %s::text[],"
                       " %s::timestamptz[], %s::numeric[])", SINK, *map(list, zip(*events)))
            self.query("SELECT revenue_sink.store_offsets(%s, %s, %s::int[], %s::bigint[])",
                       SINK, TOPIC, [partition], [messages[-1].offset() + 1])
        self.query("COMMIT")


def main():
    sink = Sink()
    batches = {}            # by partition: polled, and not written yet

    def assigned(consumer, partitions):
        for p in partitions:
            p.offset = sink.repeat(sink.open, p.partition)
            print(f"partition {p.partition} from {p.offset}, epoch {sink.epochs[p.partition]}", flush=True)
        consumer.assign(partitions)

    def revoked(consumer, partitions):
        """Called from within poll(). What isn't written yet is the next owner's."""
        batches.clear()

    consumer = Consumer({"bootstrap.servers": os.environ["BOOTSTRAP"], "group.id": JOB,
                         "group.instance.id": INSTANCE, "session.timeout.ms": 6000,
                         "enable.auto.commit": False, "enable.auto.offset.store": False,
                         "auto.offset.reset": "earliest", "isolation.level": "read_committed"})
    consumer.subscribe([TOPIC], on_assign=assigned, on_revoke=revoked)
    while True:
        for i in range(BATCH):
            message = consumer.poll(0 if i else 0.2)
            if message is None:
                break
            if not message.error():
                batches.setdefault(message.partition(), []).append(message)
            elif message.error().fatal():           # one that isn't: a broker that's away for a while
                raise KafkaException(message.error())
        for partition, messages in batches.items():
            sink.number += 1
            sink.repeat(sink.write, partition, messages)
        batches.clear()


if __name__ == "__main__":
    main()
