"""The practice venue: a WebSocket and REST server that speaks Binance's protocol."""
