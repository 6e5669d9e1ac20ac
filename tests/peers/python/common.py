"""What the peers in Python share: the command line, timing, and how a handler in another process tells when it began."""

import statistics
import sys
import time

import redis

PAYLOAD = "a task of two hundred bytes. " * 7
# Jobs before those that are timed.
WARM = 30
# A handler in another process puts the moment of its start here.
BEGUN = "peers:begun"


def arguments():
    """The mode, the address of Redis, how many jobs, and how many at once."""
    mode, url, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    return mode, url, count, int(sys.argv[4]) if len(sys.argv) > 4 else 50


def rate(count, began):
    """Prints jobs a second since `began`."""
    print(count / (time.monotonic() - began))


def times(milliseconds):
    """Prints the median and the 99th percentile."""
    cuts = statistics.quantiles(milliseconds, n=100)
    print(statistics.median(milliseconds), cuts[98])


def note_begin(url):
    """Called by a handler in another process. The monotonic clock is the same for all processes of a machine."""
    redis.Redis.from_url(url).rpush(BEGUN, time.monotonic_ns())


def pickup(url, count, submit):
    """Times `submit` to the start of the handler, one job after the other, while the worker is idle."""
    connection = redis.Redis.from_url(url)
    taken = []
    for number in range(WARM + count):
        time.sleep(0.004)
        began = time.monotonic_ns()
        submit()
        _, at = connection.blpop(BEGUN, timeout=30)
        if number >= WARM:
            taken.append((int(at) - began) / 1e6)
    times(taken)


def wait_until_empty(is_empty):
    """Comes back when nothing waits or runs."""
    while not is_empty():
        time.sleep(0.005)
