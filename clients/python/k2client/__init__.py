"""Provides the Python client: a connection to K2 that answers in Arrow, polars and pandas.

import k2client

with k2client.connect() as k2:
    frame = k2.trades("BTCUSDT", last="15m").to_polars()
"""

from k2client import errors, records
from k2client.client import Client, connect
from k2client.deadline import Retry
from k2client.errors import K2Error
from k2client.shape_questions import ShapeQuestion
from k2client.trades import Trades
from k2client.trades_request import TradesQuestion

__all__ = [
    "Client",
    "K2Error",
    "Retry",
    "ShapeQuestion",
    "Trades",
    "TradesQuestion",
    "connect",
    "errors",
    "records",
]
