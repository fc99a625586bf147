"""Every bound in K2, with the relations between them asserted here (guarantee G8).

A queue, batch, buffer, retry, stream or page without a number in this file is a defect.
Sizes are bytes, times seconds, unless the name says otherwise.
"""

KIB = 1024
MIB = 1024 * KIB

# Frames and records
FRAME_BYTES_MAX = 1 * MIB  # one WebSocket message of a venue
RECORD_BYTES_MAX = 1 * MIB  # one message on the tape
DECODE_BATCH_RECORDS = 10_000  # decoded at once: stays in cache
LABEL_BYTES_MAX = 256  # exchange, symbol, base, quote, asset class and source of one record
VENDOR_ENTRIES_MAX = 64  # entries of vendor_data in one record

# Numbers (guarantee G9)
PRICE_SCALE = 8
QUANTITY_SCALE = 8
PRICE_DIGITS = 18
QUANTITY_DIGITS = 38

# Fold
INTERVALS_PER_KEY_MAX = 100_000  # disjoint ranges of ids seen, per (exchange, symbol)

# Feed
FEED_QUEUE_RECORDS_MAX = 100_000  # produced and not yet acknowledged
FEED_STALE_S = 30.0  # no frame for this long: reconnect
FEED_BACKOFF_MIN_S = 0.5
FEED_BACKOFF_MAX_S = 30.0
FEED_RENEW_S = 23 * 3600.0  # planned renewal before the venue's cut at 24 h
FEED_OVERLAP_S = 10.0  # both connections open while renewing
FEED_HIGH_WATER_INTERVAL_S = 1.0
STREAMS_PER_CONNECTION_MAX = 1024

# Writer
COMMIT_INTERVAL_S = 10.0
COMMIT_BYTES_MAX = 256 * MIB  # of decoded rows held before a commit is forced
COMMIT_ROWS_MAX = 2_000_000
COMMIT_ATTEMPTS_MAX = 10
CONSUME_BATCH_RECORDS = 10_000
SNAPSHOTS_KEPT_MAX = 120  # a commit rewrites the metadata of all of them

# Tail
TAIL_BYTES_MAX = 512 * MIB
TAIL_RECENT_S = 900.0
TAIL_CHUNK_ROWS = 4096
TAIL_POLL_S = 0.05
EVICT_INTERVAL_S = 5.0

# Query
SYMBOLS_PER_QUERY_MAX = 100
LIMIT_ROWS_MAX = 1_000_000_000
QUERIES_RUNNING_MAX = 16
QUERY_DEADLINE_S = 60.0
WAIT_FOR_TAIL_S = 5.0
REPLANS_MAX = 3
TICKET_LIFE_S = 300.0
TICKET_BYTES_MAX = 64 * KIB
FLIGHT_BATCH_BYTES_MAX = 4 * MIB
QUERY_MEMORY_BYTES_MAX = 512 * MIB
QUERY_THREADS = 2

# Control
PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1000
GRPC_MESSAGE_BYTES_MAX = 4 * MIB
GRPC_WORKERS = 32
WATCHERS_MAX = 16  # streams that each hold a worker
HEARTBEAT_INTERVAL_S = 1.0
HEARTBEAT_STALE_S = 5.0
PROCESS_RSS_MAX = 2048 * MIB  # resident memory at which a process's pressure is 1
DRAIN_S = 10.0

# Local stack
RESTARTS_MAX = 5
RESTARTS_WINDOW_S = 60.0
STACK_RSS_MAX = 2560 * MIB
START_TIMEOUT_S = 300.0
FETCH_ATTEMPTS_MAX = 5
DISK_FREE_MIN = 512 * MIB

assert FLIGHT_BATCH_BYTES_MAX < 16 * MIB, "ADBC refuses messages over 16 MiB"
assert WATCHERS_MAX < GRPC_WORKERS, "watchers must leave workers for calls"
assert PAGE_SIZE_DEFAULT <= PAGE_SIZE_MAX
assert WAIT_FOR_TAIL_S * (REPLANS_MAX + 1) < QUERY_DEADLINE_S
assert HEARTBEAT_INTERVAL_S * 3 < HEARTBEAT_STALE_S
assert DECODE_BATCH_RECORDS <= CONSUME_BATCH_RECORDS
assert FEED_RENEW_S + FEED_OVERLAP_S < 24 * 3600
