"""A keeper of gaps in memory, for tests of what feeds it."""


class FakeGaps:
    """`Backfill`, as a pump sees it: has every run at once."""

    failure = None

    def __init__(self):
        self.runs = []
        self.counts = {}

    def exchange(self, lines, now_s):
        for line in lines:
            for run in line.missing.due(now_s):
                self.runs.append((line.instrument, run))
                line.missing.recorded(run)

    def counters(self):
        return {"runs": len(self.runs)} | self.counts
