"""What a scrape of some counters shows: values by metric and labels."""

from k2.metrics import FieldCollector
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
