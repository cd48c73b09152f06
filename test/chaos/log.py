"""The log that the processor reads, and the truth about it.

A few partitions, lines with offsets. Beside the new events there are copies of
earlier ones, near and far, in the same partition and in others; events out of
order; conflicts, which are copies with another amount; and late events, from
long before all others.

The truth is what the log's maker knows, not what anybody reads from it: each
event that was made counts once, unless it is late.
"""

MINUTE = 60 * 1000000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
BASE = 1709280000 * 1000000  # 2024-03-01 08:00 UTC
LATE = BASE - 10 * DAY
GROUPS = ("", "web", "shop", "partner", "it's, a group", "größe")


class Log:
    """Lines are (order_id, event_id, time, cents, group)."""

    def __init__(self, rng, partitions, length, span, jitter, groups):
        self.rng = rng
        self.span, self.jitter, self.groups = span, jitter, groups
        self.parts = [[] for _ in range(partitions)]
        self.lengths = [rng.randrange(length * 2 // 3, length + 1) for _ in range(partitions)]
        self.length = max(self.lengths)
        self.events = []  # those that count
        self.late = set()
        self.conflicts = set()
        self.crossed = set()  # has copies in other partitions
        self.far = rng.choice((0.0, 0.03))
        for line in range(self.length):
            for p, part in enumerate(self.parts):
                if line < self.lengths[p]:
                    part.append(self.make_line(p, line))

    def new_event(self, time):
        rng = self.rng
        n = len(self.events) + len(self.late)
        cents = rng.choice((rng.randrange(1, 20000), rng.randrange(1, 20000), -rng.randrange(1, 5000)))
        return ("order-%d" % rng.randrange(n // 3 + 1), "%d-%08x" % (n, rng.getrandbits(32)), time, cents,
                rng.choice(self.groups))

    def make_line(self, p, line):
        rng = self.rng
        part = self.parts[p]
        dice = rng.random()
        if dice < 0.12 and part:
            return rng.choice(part[-60:])
        if dice < 0.22:
            other = self.parts[rng.randrange(len(self.parts))]
            if other:
                copy = rng.choice(other[-60:])
                if copy[:2] not in self.conflicts:
                    self.crossed.add(copy[:2])
                    return copy
        if dice < 0.22 + self.far and part:
            return rng.choice(part)
        if 0.26 < dice < 0.27 and part:
            copy = rng.choice(part[-100:])
            if copy[:2] not in self.crossed and copy[:2] not in self.late:
                self.conflicts.add(copy[:2])
                return copy[:3] + (copy[3] + 100000 + line,) + copy[4:]
        if 0.27 < dice < 0.28:
            event = self.new_event(LATE + rng.randrange(DAY))
            self.late.add(event[:2])
            return event
        time = BASE + self.span * line // self.length + rng.randrange(self.jitter)
        event = self.new_event(time)
        self.events.append(event)
        return event

    def write(self, directory):
        for p, part in enumerate(self.parts):
            with open("%s/part-%d" % (directory, p), "w", encoding="utf-8") as file:
                for event in part:
                    file.write("%s\t%s\t%d\t%d\t%s\n" % event)

    def truth(self):
        """{(minute in seconds, group): (cents, events)}"""
        totals = {}
        for _, _, time, cents, group in self.events:
            key = (time // MINUTE * 60, group)
            so_far = totals.get(key, (0, 0))
            totals[key] = (so_far[0] + cents, so_far[1] + 1)
        return totals
