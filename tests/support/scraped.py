"""What a scrape of some counters shows: values by metric and labels."""

from k2.metrics import EVENTS, FieldCollector
from k2.telemetry import Counters


def scraped(group, labels=()):
    """The samples of one dataclass of counters, by name and values of labels."""
    counters = Counters()
    counters.add(lambda: group, labels=labels)
    return scraped_of(counters)


def scraped_of(counters):
    """The samples of counters, by name and values of labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in FieldCollector(counters).collect()
        for sample in family.samples
    }


class Moved:
    """How far an event's metric has moved since this was made."""

    def __init__(self, name, **labels):
        self._read = lambda: EVENTS.get_sample_value(name, labels) or 0.0
        self._before = self._read()

    def by(self):
        """The difference."""
        return self._read() - self._before
