"""Exits with 0 where a URL answers, else with 1: the health check of a container."""

import sys
import urllib.request

urllib.request.urlopen(sys.argv[1], timeout=4).close()  # raises for an answer from 400 on
