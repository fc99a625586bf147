"""Exits with 0 where a URL of its container answers, else with 1: the health check."""

import sys
import urllib.request

opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
opener.open(sys.argv[1], timeout=4).close()  # raises for an answer from 400 on
