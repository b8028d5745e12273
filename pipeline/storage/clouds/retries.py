"""The count of requests that a process repeated, of all its stores."""

from pipeline.concurrency import SharedCounter

RETRIES = SharedCounter()
