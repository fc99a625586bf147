"""Every bound in K2, with the relations between them asserted here (guarantee G8).

A queue, batch, buffer, retry, stream or page without a number in this file is a defect.
Sizes are bytes, times seconds, unless the name says otherwise.
"""

KIB = 1024
MIB = 1024 * KIB

# Frames and records
FRAME_BYTES_MAX = 1 * MIB  # one WebSocket message of a venue
RECORD_BYTES_MAX = 1 * MIB  # one message on the tape
RECORDING_LINE_BYTES_MAX = 8 * MIB  # one line of a recording: a frame, quoted
LABEL_BYTES_MAX = 256  # exchange, symbol, base, quote, asset class and source of one record
LABEL_CHARACTERS_MAX = 32  # of base, quote and asset class, each
VENDOR_ENTRIES_MAX = 64  # entries of vendor_data in one record
SYMBOL_BYTES_MAX = 64  # of a symbol that is listened to

# Numbers (guarantee G9)
PRICE_SCALE = 8
QUANTITY_SCALE = 8
PRICE_DIGITS = 18
QUANTITY_DIGITS = 38
NARROW_QUANTITY_DIGITS = 18  # where each value of a file has no more, it is stored as 64 bits
TRADE_ID_MAX = 2**63 - 1

# Records that cannot be judged as they are
INTERNAL_FAULTS_MAX = 10  # of a partition in `INTERNAL_FAULTS_S`: beyond them it stands still
INTERNAL_FAULTS_S = 3600
UNASKED_AFTER_S = 2.0  # the registry is away so long: an unknown schema id is judged unasked
UNASKED_MAX = 100  # records of a partition and outage that are
UNASKED_OVER_S = 60.0  # no record met an absent registry for so long: the outage is over

# Tape
MESSAGE_OVERHEAD_BYTES_MAX = 64 * KIB  # key and headers beside a record
FETCH_QUEUE_BYTES_MAX = 16 * MIB  # fetched by a reader and not yet read
FETCH_QUEUE_RECORDS = 50_000  # a reader stops fetching a partition above so many
FETCH_WAIT_S = 0.1  # how long a broker may hold a fetch that has nothing to answer
READER_SESSION_S = 30.0  # a joined reader that is silent so long loses its partitions
RECONNECT_MAX_S = 1.0  # between two tries to reach a broker
TAPE_REQUEST_S = 10.0  # one administrative request
TAPE_ATTEMPTS_MAX = 50
TAPE_RETRY_S = 0.1
PRODUCER_LINGER_S = 0.003
PRODUCER_QUEUE_BYTES_MAX = 256 * MIB
BOARD_WAIT_S = 10.0  # to read a compacted topic to its end, or to have a record acknowledged
BOARD_RECORDS_MAX = 10_000  # unacknowledged records of a board
DEAD_LETTER_BYTES_MAX = 16 * MIB  # original bytes kept of one dead letter
DEAD_LETTERS_RETENTION_BYTES = 1024 * MIB
GAPS_RETENTION_BYTES = 256 * MIB
SKIPPED_VALUES_MAX = 4096  # in arrays and maps that K2 does not know, in total of a record
SCHEMA_TYPES_MAX = 1000  # in fields that K2 does not know, names spelled out
SCHEMA_DEPTH_MAX = 64  # of types in each other
SCHEMA_JSON_DEPTH_MAX = 256  # a field of a record is three levels of JSON
SCHEMA_LOOKUP_S = 2.0  # to ask what an id means
SCHEMA_MISS_S = 10.0  # that the registry does not know an id is remembered so long
SCHEMA_MISSES_MAX = 10_000
SCHEMAS_KNOWN_MAX = 10_000  # held in memory
SCHEMA_LOOKUPS_PER_BATCH = 16  # of ids that were never seen; the rest of the batch waits its turn
REGISTRY_AWAY_S = 1.0  # a registry that could not be asked is left alone, at least
LABELS_KNOWN_MAX = 10_000  # distinct labels a decoder remembers
REGISTRY_REQUEST_S = 5.0
SCHEMA_BYTES_MAX = 1 * MIB

# Fold
REUSED_ID_AFTER_S = 3600  # a seen id so much later than all accepted trades is another trade's
INTERVALS_PER_KEY_MAX = 100_000  # disjoint ranges of ids seen, per (exchange, symbol)

# Feed
FEED_QUEUE_RECORDS_MAX = 100_000  # produced and not yet acknowledged
FEED_STALE_S = 30.0  # no frame for this long: reconnect
FEED_BACKOFF_MIN_S = 0.5
FEED_BACKOFF_MAX_S = 30.0
FEED_RENEW_S = 23 * 3600.0  # planned renewal before the venue's cut at 24 h
FEED_OVERLAP_S = 10.0  # both connections open while renewing
FEED_COVERAGE_INTERVAL_S = 1.0
FEED_BEGIN_WAIT_S = 1.0  # for the first promise of a line; frames wait meanwhile
FEED_SAMPLE_S = 2.0  # between two trades that the feed logs
FEED_TICK_S = 0.02  # between two looks at what is due and what was acknowledged
STREAMS_PER_CONNECTION_MAX = 1024
FEEDS_MAX = 4  # that listen to the same at once
FEED_CONNECT_S = 10.0  # for one attempt to connect
FEED_QUIET_MAX_S = 600.0  # no trade for this long, though the venue answers: renew
FEED_URL_BYTES_MAX = 4 * KIB  # of one subscription; more streams take another connection
FEED_SOCKET_FRAMES_MAX = 256  # read ahead of one connection
RECORD_PROGRESS_S = 1.0  # between two flushes of a recording
FEED_LETTERS_MAX = 1000  # malformed frames not yet acknowledged
FEED_LETTERS_BYTES_MAX = 16 * MIB
VENDOR_BYTES_MAX = 64 * KIB  # of vendor_data of one record, names and values
SEQUENCE_GAPS_MAX = 1000  # open gaps remembered per instrument
SEQUENCE_JUMP_MAX = 1_000_000_000  # more ids missing than this: the venue restarted its ids
SEQUENCE_REORDER_MAX = 10_000  # further below all that is known: the venue restarted its ids

# Gaps and backfill
LEDGER_GAPS_MAX = 10_000  # intervals of one instrument that a reader of the ledger remembers
FEED_GAP_GRACE_S = (
    1.0  # a missing id may still come by itself: out of order, by the other connection
)
FEED_MISSING_MAX = 1000  # runs of missing ids of a line that the ledger does not have yet
FEED_REST_S = 10.0  # one request to a venue
FEED_REST_BYTES_MAX = 4 * MIB  # of its answer
FEED_WEIGHT_PER_MINUTE = 3000  # of the 6000 that Binance gives an address: others use it, too
FEED_REST_BACKOFF_MIN_S = 1.0
FEED_REST_BACKOFF_MAX_S = 60.0
FEED_REST_BLOCKED_MAX_S = 3 * 86_400.0  # believed of a Retry-After; Binance's longest ban
FEED_ABSENT_S = 10.0  # what a venue does not have when it is missing for so long, it never had
FEED_UNKNOWN_S = 600.0  # a venue that for so long does not know a symbol has none of its ids
FEED_UNKNOWN_ANSWERS = 3  # that say so, at least
FEED_ASK_AGAIN_S = 6 * 3600.0  # ids that a venue did not have are asked for again
BACKFILL_QUEUE_RECORDS_MAX = 10_000  # with more in the producer's queue, backfill waits
BACKFILL_ACK_S = 30.0  # for the tape to acknowledge a page
BACKFILL_STEP_S = 0.2  # between two looks at what there is to fill
BACKFILL_GATHER_S = 2.0  # an instrument that was whole again lets new gaps gather for one request
BACKFILL_IDS_MAX = 10_000_000  # of one request
DAY_FILE_LINE_BYTES_MAX = 4 * KIB  # of a venue's file of trades
DAY_FILE_REFUSED_LISTED = 100  # lines of it that are no trades; more are counted
DAY_FILE_ROWS = 5000  # sent before their acknowledgements are waited for
BACKFILL_REQUESTS_MAX = 1000  # that wait to be taken up

# Practice venue
VENUE_RATE_MAX = 100_000.0  # trades a second of all symbols together
VENUE_SYMBOLS_MAX = 1024
VENUE_SYMBOL_BYTES_MAX = 20
VENUE_BLOCKS_HELD_MAX = 8  # of 67 s, a symbol
VENUE_SEGMENTS_MAX = 1000  # changes of rate or symbols that are remembered
VENUE_CONNECTIONS_MAX = 64
VENUE_BUFFER_BYTES_MAX = 32 * MIB  # sent and not taken by a connection: then it is cut
VENUE_STALL_S = 30.0  # after a longer sleep of the venue its market goes on without looking back
VENUE_PING_S = 20.0
VENUE_PONG_S = 60.0
VENUE_CUT_S = 24 * 3600.0  # the life of a connection
VENUE_REQUESTS_PER_S_MAX = 5  # messages of a client
VENUE_WEIGHT_PER_MINUTE_MAX = 6000  # REST, an address
HISTORICAL_TRADES_MAX = 1000

# Writer
COMMIT_INTERVAL_S = 10.0
COMMIT_INTERVAL_CALM_S = 2.0  # a lag is judged as if commits were at least so far apart
COMMIT_LATENCY_CALM_S = 10.0  # and the time that one takes as if they were this far apart
COMMIT_BYTES_MAX = 256 * MIB  # of decoded rows held before a commit is forced
COMMIT_ROWS_MAX = 1_000_000
COMMIT_DAYS_MAX = 64  # event days of the rows of one commit: each day is a file, about 45 ms
COMMIT_ATTEMPTS_MAX = 10
CONSUME_BATCH_RECORDS = 10_000
SNAPSHOTS_KEPT_MAX = 120  # a commit rewrites the metadata of all of them
COMMIT_RETRY_MIN_S = 0.2  # after a commit that did not reach the lake
COMMIT_RETRY_MAX_S = 10.0
FILE_ATTEMPTS_MAX = 6  # of one operation on a file of the lake
FILE_RETRY_S = 0.01  # before its second try; doubled for each further one
FILE_READ_WHOLE_BYTES = 8 * MIB  # a file up to this size is read at once
CATALOG_BUSY_S = 30.0  # waiting for another process's transaction
METADATA_VERSIONS_KEPT = 20  # earlier metadata files, for readers that just looked them up
MANIFESTS_TO_MERGE = 8  # of a size class; each class holds so many times the one below
MANIFEST_CLASSES = 3  # size classes that are merged upwards
MANIFEST_BYTES_MAX = 512 * KIB
ROW_GROUP_ROWS = 32_768  # what a query decodes at least of a file
FILE_LISTS_KEPT = 32  # snapshots whose file list is kept in memory
MANIFESTS_KEPT = 256  # manifests whose files are kept in memory
DEAD_LETTER_WAIT_S = 30.0  # for the tape to acknowledge dead letters
WRITER_READ_TIMEOUT_S = 0.1  # waiting for the first record
WRITER_SMALL_READ = 1000  # records; after fewer, the writer lets some gather
WRITER_PACE_S = 0.1
THROTTLE_BURST_S = 0.5  # a throttled writer takes at once what its rate brings in so long
LAG_LOOK_S = 1.0  # between two looks at where the tape ends
DEFERRAL_STEP_S = 3.0  # between two looks at what the ledger should say of deferred trades
DEFERRAL_EVENT_S = 0.1  # more for each event of the last one: so many of them in a second at most
LAG_LOOKS_KEPT = 600  # of a partition that lags; then every second one
EPOCHS_MAX = 100  # of the tape, in the life of a lake; each snapshot says where they ended
ROW_BYTES = 64  # of a decoded row in memory, without vendor_data and optional columns

# Ops tables
OPS_READ_RECORDS = 100
OPS_PACE_S = 0.25  # between two looks at the topics
OPS_ROWS_MAX = 10_000  # not yet committed, before a commit is forced
OPS_BYTES_MAX = 32 * MIB  # the same
LETTER_INTERVALS_MAX = 10_000  # of one origin, remembered; older ones are looked up in the lake
LETTER_ORIGINS_MAX = 1000  # partitions and runs of feeds, remembered; the same
LETTERS_UNSTORED_MAX = 100_000  # listed of those that the table has yet to take
LETTERS_REPLAYED_MAX = 100  # a call
LETTER_SHOWN_BYTES_MAX = 1 * MIB

# Verification
VERIFY_PATIENCE_S = 30.0  # with a tape that gives nothing
VERIFY_DISORDER_S = 60  # between times of trades whose ids are in another order
VERIFY_PLACES_MAX = 16  # runs of 65,536 offsets that are looked at row by row
VERIFY_OFFSETS_LISTED = 20  # of each problem
VERIFY_HOLES_LISTED = 10_000
VERIFY_PROGRESS_INTERVAL_S = 0.5

# Retention
LAKE_BYTES_MAX = 20 * 1024 * MIB  # of the newest snapshot, by default
LETTERS_BYTES_MAX = 1024 * MIB  # of the table of dead letters, by default
LAKE_BYTES_MIN = 64 * MIB  # of either
RETAIN_INTERVAL_S = 60.0
TAPE_WATCH_S = 10.0  # between two looks at how near the tape's retention is to the lake's positions

# Maintenance
SNAPSHOTS_NEWEST_KEPT = 20  # of those that are kept, at least
COMPACT_FILES_TO_MERGE = 8  # of a size class; each class holds so many times the one below
COMPACT_FILES_MAX = 64  # merged in one pass
COMPACT_ROWS_MAX = 1_000_000  # rewritten in one pass; files of half that are left alone
COMPACT_MEMORY_MAX = 128 * MIB  # of the rows of one pass
COMPACT_TARGET_BYTES = 32 * MIB  # files of half that are left alone
COMPACT_QUIET_S = 86_400.0  # after the end of a day, until what is left of it is merged further
MAINTAIN_INTERVAL_S = 30.0  # between two looks for files to merge
SWEEP_INTERVAL_S = 600.0  # between two looks for files that nothing names
SWEEP_GRACE_S = 10_800.0  # how long a file stays that nothing names
SWEEP_GRACE_MIN_S = 8_100.0
CLOCK_SKEW_MAX_S = 3_600.0  # by which the clocks of one platform may differ

# Tail
TAIL_BYTES_MAX = 512 * MIB
TAIL_RECENT_S = 900.0
TAIL_CHUNK_ROWS = 4096
TAIL_POLL_S = 0.05
TAIL_GATHER_S = 0.01  # records are gathered so long, unless a query waits for them
TAIL_GATHER_RECORDS = 1000  # or unless so many come at once
TAIL_DEAD_KEPT = 100_000  # offsets of dead records of a partition that no commit has passed yet
TAIL_RETRY_S = 0.5  # when a batch cannot be judged now
TAIL_CATCH_UP_RECORDS_PER_S = 50_000  # of all partitions that a level paused before
TAIL_CATCH_UP_AHEAD = 500_000  # records of them above the lake's positions

# Query
SYMBOLS_PER_QUERY_MAX = 100
LIMIT_ROWS_MAX = 1_000_000_000
BARS_FILLED_MAX = 10_000_000  # of an instrument, in one answer
QUERIES_CRITICAL_MAX = 8  # places of a class, which no other class takes
QUERIES_INTERACTIVE_MAX = 16
QUERIES_BATCH_MAX = 6  # without pressure
QUERIES_CALLER_SHARE = 0.5  # of the places of a class, that one caller may hold
QUERIES_RUNNING_MAX = 36  # whose pressure is 1
HEAVY_ROWS = 5_000_000  # estimated
HEAVY_BYTES = 256 * MIB  # of files, estimated
POINT_ROWS_MAX = 10_000  # `limit` of a point query
POINT_RANGE_S = 60.0  # or its range
CALLER_NAME_MAX = 64  # characters of `k2-client-id`
PLANS_RUNNING_MAX = 8  # over Flight, where each call has a thread of its own
QUERY_DEADLINE_S = 60.0
STREAM_S = 3600.0  # of one stream of rows, its reader's pauses included
STREAM_IDLE_S = 60.0  # a stream whose reader takes nothing for so long ends
STREAM_WAITING_S = 1.0  # a stream that waits so long for its reader is no load
STREAM_POLL_S = 0.2  # between two looks at all streams
DEADLINE_POLL_S = 0.05  # how exactly a deadline is kept inside a statement
WAIT_FOR_TAIL_S = 5.0
WAIT_FOR_OTHERS_S = 0.1  # for partitions that a query's symbols are not known to be in
SNAPSHOT_POLL_S = 0.5  # how often a query server looks for a newer snapshot
TICKET_LIFE_S = 300.0
TICKET_BYTES_MAX = 64 * KIB
PARTITIONS_MAX = 1024  # of a tape that a read token names
READ_TOKEN_CHARS_MAX = 16 * KIB
FLIGHT_BATCH_BYTES_MAX = 4 * MIB
QUERY_MEMORY_BYTES_MAX = 512 * MIB
QUERY_PARTS_BYTES_MAX = 256 * MIB  # rows that all answers together hold outside DuckDB
QUERY_THREADS = 2
QUERY_TURNS = 2  # long streams that make a batch at the same time

# Control
PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1000
GRPC_MESSAGE_BYTES_MAX = 4 * MIB
GRPC_WORKERS = 48
GRPC_CALLS_MAX = 128  # in work and waiting for a worker; more are refused with a reason
GRPC_QUERIES_MAX = 96  # the same for queries: other calls always find room
GRPC_CALLS_REFUSED_MAX = 4096  # those being refused included; more are refused without a word
ERROR_TEXT_MAX = 1024  # of an error's message, on the wire; a letter beyond ASCII counts for more
ERROR_DETAIL_MAX = 200  # the same, of one of its details
ERROR_DETAILS_MAX = 6
ERROR_NAME_MAX = 64  # characters of a wrong name that its message repeats
ERROR_NAMES_MAX = 5  # named in a message; more are counted
WATCHERS_MAX = 16  # streams that each hold a worker
SIGNAL_INTERVAL_S = 0.25  # between two readings of a process's signals
HEARTBEAT_INTERVAL_S = 1.0
HEARTBEAT_STALE_S = 5.0
OVERRIDE_MAX_S = 86_400.0
OVERRIDE_REASON_MAX = 256  # characters
INJECTION_MAX_S = 600.0
TRANSITIONS_UNSENT_MAX = 1000  # changes of the level that are kept while the tape is away
PROCESS_RSS_MAX = 2048 * MIB  # resident memory at which a process's pressure is 1
DRAIN_S = 10.0
STOP_S = 0.5  # from a request to stop until long work ends that has no drain
DRAIN_CLOSE_S = 2.0  # of it, for a row server to close after its streams were ended

# HTTP edge
EDGE_ROWS_DEFAULT = 1000  # `limit` of an answer that names none
EDGE_ROWS_MAX = 5000  # of an answer that is made whole, as all are in JSON
EDGE_LISTED_MAX = 1000  # snapshots or gaps of an answer
EDGE_THREADS = 6  # that call K2 for rows
EDGE_LIVE_THREADS = 2  # that call it for what is new
EDGE_CONTROL_THREADS = 4  # that call it for all else
EDGE_CALLS_MAX = 64  # for rows, in work and waiting for a thread; more are refused
EDGE_STREAMS_MAX = 16  # answers that are sent while they are read
EDGE_CALL_S = 20.0  # to plan and to read an answer that is made whole
EDGE_STATUS_S = 5.0  # to ask for the state of the platform
EDGE_CURSOR_CHARS_MAX = 24 * KIB
EDGE_WATCHERS_MAX = 64  # streams of events
EDGE_WATCHED_MAX = 32  # different questions behind them
EDGE_POLL_S = 0.5  # between two asks for what is new
EDGE_EVENTS_KEPT = 16  # that a slow watcher has not read; it is let go at more
EDGE_EVENT_ROWS_MAX = 500  # of one event
EDGE_DRAIN_S = 5.0  # for answers on their way
EDGE_REQUEST_BYTES_MAX = 256 * KIB  # of a request's line and headers

# Local stack
RESTARTS_MAX = 5
RESTARTS_WINDOW_S = 60.0
LIFE_SOUND_S = 300.0  # a process that lived so long was well, though it found nothing to do
PROGRESS_TOLD_S = 5.0  # between two words of a process to its supervisor that work gets done
FAILING_SHOWN_S = 10.0  # between the word that a process is failing and the end of its stack
STACK_RSS_MAX = 2560 * MIB
FETCH_ATTEMPTS_MAX = 5
FETCH_TIMEOUT_S = 20  # without a byte
FETCH_PAUSE_S = 1.0  # before the second try; before the n-th, n - 1 times as long
FETCHES_AT_ONCE = 4
FETCH_POLL_S = 0.2  # while another process fetches
FORMAT_S = 60.0  # to format the broker's storage
BROKER_HEAP = 320 * MIB
REGISTRY_HEAP = 160 * MIB
DISK_FREE_MIN = 512 * MIB  # to start
DISK_FREE_STOP = 128 * MIB  # below it a running stack drains, while there is room to do so
DISK_CHECK_S = 2.0
OPEN_FILES_MIN = 1024  # of one process, to start: the broker holds some for each segment
OPEN_FILES = 4096  # asked for, where the system gives so many
CHILD_START_S = 180.0  # from a process's start until it serves
SUPERVISOR_GAP_S = 10.0  # between two turns of the supervisor: the machine slept meanwhile
CHILD_PROBE_S = 0.1
RESTART_PAUSE_MIN_S = 0.2  # before a process that died is started again; doubled each time
RESTART_PAUSE_MAX_S = 5.0
CHILD_DRAIN_S = 15.0  # a process that was asked to stop; then it is killed
CHILD_LINE_BYTES_MAX = 64 * KIB  # of one line that a child prints
LOG_BYTES_MAX = 32 * MIB  # of the log of one process; one older file of that size is kept
TRACES_JOINED_MAX = 8  # traces of batches that a fold or a commit belongs to; more are its links
TRACE_LINKS_MAX = 32  # of a span
TRACE_LOOKED_AT_MAX = 256  # records of one read that are searched for a trace; at an even distance
TRACE_EXAMPLES_MAX = 8  # the same, where a trace is only the exemplar of a histogram
TRACE_DRAIN_S = 2.0  # for the spans of an ending process; what is left then is dropped
TRACE_EXPORT_S = 5.0  # for one request to the collector, its retries included
LOG_LINES_MAX = 20  # of one message in one window; more are counted
LOG_WINDOW_S = 10.0
LOG_EXPORTER_S = 60.0  # the exporter of traces writes one line in so long
LOG_MESSAGES_MAX = 512  # messages whose lines are counted at once
LIVE_PROBE_S = 5.0  # to find out whether a live venue can be reached

# Backup
COPY_BYTES = 1 * MIB  # moved at once
BACKUP_PINS_MAX = 10  # when maintenance removes what was about to be copied
STEADY_COPIES_MAX = 20  # of a database that is written meanwhile
STEADY_PAUSE_S = 0.5

assert 20 * FILE_RETRY_S * (2 ** (FILE_ATTEMPTS_MAX - 1) - 1) < DRAIN_S, (
    "a commit of twenty operations that all fail but the last time ends within a drain"
)
assert WRITER_PACE_S < THROTTLE_BURST_S, "a throttled writer takes all that its rate allows"
assert FLIGHT_BATCH_BYTES_MAX < 16 * MIB, "ADBC refuses messages over 16 MiB"
_QUERIES = QUERIES_CRITICAL_MAX + QUERIES_INTERACTIVE_MAX + QUERIES_BATCH_MAX
assert WATCHERS_MAX + _QUERIES < GRPC_WORKERS, "both must leave workers for other calls"
assert GRPC_WORKERS < GRPC_QUERIES_MAX < GRPC_CALLS_MAX
assert _QUERIES < QUERIES_RUNNING_MAX, "full places alone do not stop the platform"
assert PAGE_SIZE_DEFAULT <= PAGE_SIZE_MAX
assert WAIT_FOR_TAIL_S < QUERY_DEADLINE_S
assert GRPC_WORKERS < GRPC_CALLS_MAX < GRPC_CALLS_REFUSED_MAX
assert HEARTBEAT_INTERVAL_S * 3 < HEARTBEAT_STALE_S
assert FRAME_BYTES_MAX * 4 < RECORDING_LINE_BYTES_MAX, "any frame can be recorded"
assert RECORD_BYTES_MAX + MESSAGE_OVERHEAD_BYTES_MAX <= FETCH_QUEUE_BYTES_MAX
assert RECORD_BYTES_MAX <= DEAD_LETTER_BYTES_MAX
assert 3 * SCHEMA_DEPTH_MAX < SCHEMA_JSON_DEPTH_MAX, "what is refused by depth is refused by type"
assert FEED_RENEW_S + FEED_OVERLAP_S < 24 * 3600
assert FEED_TICK_S < FEED_BACKOFF_MIN_S < FEED_BACKOFF_MAX_S < FEED_QUIET_MAX_S
assert FEED_CONNECT_S + FEED_OVERLAP_S < FEED_STALE_S, "a silent venue is replaced, not lost"
assert FEED_LETTERS_BYTES_MAX >= FRAME_BYTES_MAX
assert FEED_GAP_GRACE_S < FEED_OVERLAP_S
assert FEED_BEGIN_WAIT_S < FEED_STALE_S < FEED_QUIET_MAX_S, "waiting for the tape loses no venue"
assert FEED_TICK_S < FEED_GAP_GRACE_S < FEED_ABSENT_S
assert FEED_ABSENT_S < FEED_REST_BACKOFF_MAX_S < FEED_UNKNOWN_S < FEED_ASK_AGAIN_S
assert HISTORICAL_TRADES_MAX <= BACKFILL_QUEUE_RECORDS_MAX < FEED_QUEUE_RECORDS_MAX // 2
assert DAY_FILE_ROWS <= BACKFILL_QUEUE_RECORDS_MAX
assert BACKFILL_STEP_S < BACKFILL_GATHER_S < FEED_ABSENT_S
assert FEED_WEIGHT_PER_MINUTE < VENUE_WEIGHT_PER_MINUTE_MAX
assert FEED_MISSING_MAX < LEDGER_GAPS_MAX
assert DEAD_LETTER_BYTES_MAX <= OPS_BYTES_MAX
assert LETTER_SHOWN_BYTES_MAX < GRPC_MESSAGE_BYTES_MAX
assert LETTER_INTERVALS_MAX <= INTERVALS_PER_KEY_MAX
assert DISK_FREE_STOP < DISK_FREE_MIN
assert OPEN_FILES_MIN <= OPEN_FILES
assert PARTITIONS_MAX * 10 * 4 / 3 + LABEL_BYTES_MAX * 2 < READ_TOKEN_CHARS_MAX, "any tape's fits"
assert READ_TOKEN_CHARS_MAX + PARTITIONS_MAX * 10 < TICKET_BYTES_MAX / 2, "it fits into a ticket"
assert CHILD_DRAIN_S > DRAIN_S > DRAIN_CLOSE_S
assert CHILD_DRAIN_S > DRAIN_S + TRACE_DRAIN_S
assert EDGE_ROWS_DEFAULT <= EDGE_ROWS_MAX < POINT_ROWS_MAX, "a page is a point query"
assert EDGE_THREADS + EDGE_LIVE_THREADS <= QUERIES_CALLER_SHARE * QUERIES_INTERACTIVE_MAX, (
    "the edge may ask for one peer alone, which is one caller"
)
assert READ_TOKEN_CHARS_MAX < EDGE_CURSOR_CHARS_MAX
assert SYMBOLS_PER_QUERY_MAX * SYMBOL_BYTES_MAX * 12 < EDGE_REQUEST_BYTES_MAX, "quoted in a URL"
assert STREAM_POLL_S < STREAM_WAITING_S < STREAM_IDLE_S < STREAM_S
assert HEARTBEAT_INTERVAL_S < PROGRESS_TOLD_S < RESTARTS_WINDOW_S / RESTARTS_MAX
assert SNAPSHOTS_NEWEST_KEPT < SNAPSHOTS_KEPT_MAX
assert COMPACT_FILES_TO_MERGE <= COMPACT_FILES_MAX
assert SWEEP_GRACE_MIN_S <= SWEEP_GRACE_S
assert SWEEP_GRACE_MIN_S > (
    SNAPSHOT_POLL_S + TICKET_LIFE_S + QUERY_DEADLINE_S + STREAM_S + CLOCK_SKEW_MAX_S
), "a query may read what was the newest snapshot when it was planned until its stream ends"
