"""Answers a request exactly: request, plan, SQL, execution."""
