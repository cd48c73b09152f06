#!/usr/bin/python3
"""Sends events as one value per call, by apply_rows.

    rows.py DSN TOPIC

The topic is a CSV file of order_id,event_id,event_time,amount,group_key. Prints how
many events were applied, and how many were duplicates. Runs with psycopg 3 and 2.
"""
import csv
import struct
import sys
from datetime import datetime, timezone
from decimal import Decimal

try:
    import psycopg
except ImportError:
    import psycopg2 as psycopg

BATCH = 700                 # events a call


def field(value):
    return struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value


def numeric(amount):
    """Two decimals: four digits of base 10,000 before the point, and one behind it."""
    assert amount == round(amount, 2) and abs(amount) < 10 ** 16
    cents = int(abs(amount) * 100)
    digits = [cents // 100 // 10_000 ** i % 10_000 for i in (3, 2, 1, 0)] + [cents % 100 * 100]
    return struct.pack("!hhHh5h", 5, 3, 0x4000 if amount < 0 else 0, 2, *digits)


def row(order_id, event_id, event_time, amount, group_key=None):
    micros = round((event_time - datetime(2000, 1, 1, tzinfo=timezone.utc)).total_seconds() * 1_000_000)
    return (struct.pack("!h", 5) + field(order_id.encode()) + field(event_id.encode())
            + field(struct.pack("!q", micros)) + field(numeric(amount))
            + field(None if group_key is None else group_key.encode()))


def rows(events):
    return (b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
            + b"".join(row(*event) for event in events) + struct.pack("!h", -1))


def main(dsn, topic):
    with open(topic, newline="") as file:
        events = [(order_id, event_id, datetime.fromisoformat(time + ":00"), Decimal(amount), group_key or None)
                  for order_id, event_id, time, amount, group_key in csv.reader(file)]
    conn = psycopg.connect(dsn)
    applied = duplicate = 0
    for start in range(0, len(events), BATCH):
        with conn.cursor() as cursor:
            cursor.execute("SELECT applied, duplicate FROM revenue_sink.apply_rows('orders', %s)",
                           (rows(events[start:start + BATCH]),))
            counts = cursor.fetchone()
        conn.commit()
        applied += counts[0]
        duplicate += counts[1]
    print(f"applied {applied}, duplicate {duplicate}")


main(*sys.argv[1:])
