import io
import json
import logging

import pytest

from k2 import limits, logs, tracing
from k2.metrics import EVENTS
from tests.support.spans import recorded

LOG = logging.getLogger("k2.feed")


@pytest.fixture(autouse=True)
def _restore():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def lines():
    """Set up logging; returns a function that returns the lines so far."""
    logs.set_up("feed", "info")
    stream = io.StringIO()
    logging.getLogger().handlers[0].setStream(stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def log_at(at_s, text="took %d", *args, name="k2.feed", level=logging.WARNING):
    """Log as if it were that time."""
    record = logging.makeLogRecord(
        {
            "name": name,
            "levelno": level,
            "levelname": logging.getLevelName(level),
            "msg": text,
            "args": args,
            "created": at_s,
        }
    )
    logging.getLogger().handle(record)


def value(name, **labels):
    return EVENTS.get_sample_value(name, labels) or 0.0


def test_a_log_line_is_one_json_object(capsys):
    logs.set_up("feed", "info")
    LOG.info("took %d", 3, extra={"symbol": "BTCUSDT"})
    LOG.debug("not this one")
    try:
        raise ValueError("why")
    except ValueError:
        LOG.exception("failed")
    took, failed = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (took["process"], took["level"], took["message"]) == ("feed", "info", "took 3")
    assert took["symbol"] == "BTCUSDT"
    assert "trace_id" not in took
    assert "ValueError: why" in failed["exception"]


def test_lines_are_in_a_bounded_file_too_where_there_is_a_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(limits, "LOG_BYTES_MAX", 1000)
    logs.set_up("feed", "info", tmp_path / "logs")
    for number in range(limits.LOG_LINES_MAX + 5):
        LOG.info("took %d", number)
    LOG.info("done")
    logging.getLogger().handlers[0].close()
    written = sorted((tmp_path / "logs").iterdir())
    assert [path.name for path in written] == ["feed.log", "feed.log.1"]
    assert all(path.stat().st_size <= 1000 for path in written)
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == limits.LOG_LINES_MAX + 2
    assert written[0].read_text().splitlines()[-1] == shown[-1]


def test_a_line_within_a_recorded_span_says_which(lines):
    with recorded(), tracing.begin(tracing.COMMIT) as span:
        LOG.info("committed")
    with recorded(0.0), tracing.begin(tracing.COMMIT):
        LOG.info("committed unseen")
    committed, unseen = lines()
    assert [f"00-{committed['trace_id']}-{committed['span_id']}-01"] == [*span.traceparents]
    assert "trace_id" not in unseen


def test_of_one_message_some_lines_are_written_and_the_others_counted(lines):
    written, left_out = (
        value("k2_log_lines_total", level="warning"),
        value("k2_log_suppressed_total"),
    )
    for number in range(limits.LOG_LINES_MAX + 7):
        log_at(1000.0 + number / 10, "took %d", number)
    log_at(1001.0, "another")
    log_at(1001.0, "took %d", 1, name="k2.lake")
    log_at(1000.0 + limits.LOG_WINDOW_S, "took %d", 99)
    found = lines()
    messages = [line["message"] for line in found]
    assert messages[: limits.LOG_LINES_MAX] == [f"took {n}" for n in range(limits.LOG_LINES_MAX)]
    assert messages[limits.LOG_LINES_MAX :] == [
        "another", "took 1", "7 more lines were left out: took %d", "took 99"
    ]  # fmt: skip
    told = found[-2]
    assert (told["suppressed"], told["level"], told["logger"]) == (7, "warning", "k2.feed")
    assert value("k2_log_lines_total", level="warning") == written + limits.LOG_LINES_MAX + 4
    assert value("k2_log_suppressed_total") == left_out + 7


def test_of_what_sends_traces_one_line_is_written_a_minute(lines):
    exporter, sdk = "opentelemetry.exporter.otlp.proto.grpc.exporter", "opentelemetry.sdk"
    left_out = value("k2_log_suppressed_total")
    log_at(1000.0, "Transient error", name=exporter)
    for number in range(1, 30):
        log_at(1000.0 + number, "Failed to export", name=exporter)
        log_at(1000.0 + number, "Queue full", name=sdk)
    log_at(1001.0, "took %d", 1)
    log_at(1000.0 + limits.LOG_EXPORTER_S, "Queue full", name=sdk)
    found = lines()
    assert [line["message"] for line in found] == ["Transient error", "took 1", "Queue full"]
    assert [line.get("suppressed") for line in found] == [None, None, 58]
    assert value("k2_log_suppressed_total") == left_out + 58


def test_what_was_left_out_is_said_at_the_end(lines):
    for _ in range(limits.LOG_LINES_MAX + 1):
        log_at(1000.0, "away")
    log_at(1000.0, "back")
    logging.getLogger().handlers[0].close()
    assert [line["message"] for line in lines()][-2:] == [
        "back", "1 more lines were left out: away"
    ]  # fmt: skip


def test_a_clock_that_goes_back_begins_again(lines):
    for at_s in (1000.0, 10.0):
        for _ in range(limits.LOG_LINES_MAX):
            log_at(at_s, "away")
    assert len(lines()) == 2 * limits.LOG_LINES_MAX


def test_messages_without_number_take_bounded_memory(lines):
    for number in range(limits.LOG_MESSAGES_MAX + 50):
        log_at(1000.0, f"id {number}")
    handler = logging.getLogger().handlers[0]
    assert len(lines()) == limits.LOG_MESSAGES_MAX + 50
    assert len(handler._windows) == limits.LOG_MESSAGES_MAX
