"""One question, one exact answer: request, plan, SQL, execution."""
