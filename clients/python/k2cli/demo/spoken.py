"""What the presenter says and points at, by part. Figures stand in the evidence, never here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """The words of one part.

    Attributes:
        say: sentences to say.
        show: what to open or point at; `{name}` is the address of a page.
        next: the sentence that leads on.
    """

    say: tuple[str, ...]
    show: tuple[str, ...] = ()
    next: str = ""


SIMULATED = "SIMULATED DATA: the practice venue prints these trades; no market is reached"

WORDS: dict[str, Words] = {
    "opening": Words(
        say=(
            "K2 keeps the trades of a venue and answers questions about them as one table.",
            "What you see is measured while you watch. A target that is missed is shown as missed.",
            "Interrupt me with questions; after twelve minutes there is more time for them.",
        ),
        next="First, what K2 is for, and what it is not for.",
    ),
    "positioning": Words(
        say=(
            "K2 serves research, backtests, transaction cost analysis and compliance.",
            "It answers in milliseconds to seconds. Orders are not routed by it: that world counts"
            " microseconds, and K2 does not enter it.",
            "Its promise is not speed but exactness: each trade once, and the same answer again at"
            " any later time.",
        ),
        show=(
            "docs/demo/positioning.svg: the latency tiers",
            "docs/comparison.md: what other systems do, and their limits",
            "{edge}/ : the status page",
        ),
        next="Now the trades themselves, as they arrive.",
    ),
    "streaming": Words(
        say=(
            "The feed reads the venue's socket and sends each trade to Kafka, with a schema that a"
            " registry keeps.",
            "Trade ids are consecutive. When one is missing, K2 records the gap and fetches it from"
            " the venue's past.",
            "A record that cannot be decoded is kept with its bytes; it is neither dropped nor"
            " guessed.",
        ),
        show=(
            "k2 logs feed --follow : a trade every few seconds",
            "k2 tape topics --watch : counts that grow",
            "{kafka-ui}/ : the same topics in a browser, where it is part of the stack",
        ),
        next="From Kafka the trades go to the lake.",
    ),
    "storage": Words(
        say=(
            "The lake is an Iceberg table. A commit holds the rows and the Kafka offsets they came"
            " from, so a crash neither loses nor repeats one.",
            "Each commit is a snapshot. A question can name one, and is answered from exactly its"
            " rows, however many came since.",
            "An answer carries a token. With the token a colleague gets the same rows.",
        ),
        show=("k2 snapshots --limit 5", "k2 trades BTCUSDT --limit 5 --as-of ID"),
        next="Next, how an operator knows that all this works.",
    ),
    "monitoring": Words(
        say=(
            "Every process serves its metrics. Their catalogue is written from the code, so that"
            " none is documented and missing.",
            "Boards and alerts are code, too, and each alert was seen to fire in a test.",
            "The level says how much load is shed at this moment. It follows from measured"
            " pressure.",
        ),
        show=(
            "{grafana}/ : board System Health, where it is part of the stack",
            "{prometheus}/graph : k2_degradation_level, k2_http_requests_total",
            "{edge}/ : tab Health shows the same panels without Grafana",
        ),
        next="So what happens when there is too much load?",
    ),
    "resilience": Words(
        say=(
            "There are five levels, from NORMAL to CIRCUIT_BREAK. Each gives up something less"
            " important than the one before.",
            "First enrichment and maintenance wait, then less important symbols, last of all the"
            " intake itself.",
            "Shed means later, not lost: the positions are kept, and everything is caught up.",
            "Recovery goes one step at a time, so that the level does not swing.",
        ),
        show=(
            "k2 degrade watch : level and pressures as they change",
            "python scripts/demo_degradation.py --quick : the same by real load, and its account",
            "{grafana}/ : the level's panel",
        ),
        next="Back to questions, and where their answers come from.",
    ),
    "hybrid": Words(
        say=(
            "A question reads the lake up to an offset and memory from that offset on. The cut is"
            " exact: no trade is in both, none in neither.",
            "The answer says which side gave how many rows, and how complete it is.",
            "If a side is missing, the question fails by name. It does not return half an answer.",
            "Bars and joins are made from the same rows, in exact decimals.",
        ),
        show=(
            "{edge}/v1/trades/recent?symbol=BTCUSDT&limit=10",
            "{edge}/docs : every endpoint, to try",
            "k2 trades BTCUSDT --last 15m --limit 10 --order desc",
            "k2 bars BTCUSDT --every 1m --last 15m",
        ),
        next="Last, what it costs.",
    ),
    "cost": Words(
        say=(
            "The cost is a function of what was measured and of public list prices with their"
            " date. Change an assumption and it is computed again.",
            "At a small rate the smallest machine is the bill; at a large one the copies of the"
            " tape between zones are.",
            "Other vendors are compared only where they publish a price.",
        ),
        show=("k2 cost", "docs/cost-model.md : formula, tables, sensitivity"),
        next="That is all of it; let me sum up.",
    ),
    "closing": Words(
        say=(
            "One table over stream and lake, exact, repeatable, and honest about what it lacks.",
            "Every figure on these screens has a command beside it. Run it yourself.",
            "Next come more venues, and more than one machine; today K2 runs on one.",
        ),
        show=("docs/claims.md : each claim, its figure, kept or corrected",),
    ),
}

QUESTIONS: tuple[tuple[str, str], ...] = (
    (
        "Why not a tick database such as kdb+?",
        "For microsecond analytics in memory it is the better tool. K2 is for history that grows"
        " without end, in open files that other engines read, with answers that can be repeated."
        " We quote no price for it: none is public.",
    ),
    (
        "What happens when the venue changes its messages?",
        "A new optional field travels in `vendor_data` and can become a column; the lake's table"
        " follows its schema. A message that no longer decodes becomes a dead letter with its"
        " bytes, which is replayed after the repair.",
    ),
    (
        "How much can one machine take?",
        "See docs/performance.md: the feed, the writer and the tail are each measured on one core."
        " More than one machine is not built yet, and figures beyond one are extrapolated.",
    ),
    (
        "How do you know that nothing is lost or doubled?",
        "`k2 verify` folds the tape again and compares it with the lake, id by id. The simulation"
        " and the chaos tests run it after kills at every step.",
    ),
    (
        "Is it cheaper than what we have?",
        "`k2 cost` computes K2's side from list prices. Put your own bill beside it: prices of"
        " other vendors depend on contracts, and we do not guess them.",
    ),
    (
        "When could it run in production?",
        "On one machine today, with backup, restore, alerts and runbooks. For several machines"
        " there is a design and no date: a number of weeks would be a guess.",
    ),
    (
        "Does it satisfy an auditor?",
        "Snapshots do not change, tokens repeat an answer, and gaps are on record with their cause."
        " Who asked what is not recorded yet.",
    ),
    (
        "Is this live market data?",
        "The screen says so at the top: live, recorded or simulated. Rows of different kinds are"
        " never mixed in one data directory.",
    ),
)
