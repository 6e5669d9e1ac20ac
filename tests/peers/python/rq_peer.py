"""RQ, with workers as its users start them: each forks a process for every job. Two workers, one for each core."""

import os
import subprocess
import sys
import time

import redis
import rq

import common

WORKERS = 2


def nothing(payload):
    """A job without work."""


def begin(url):
    """A job that tells when it began."""
    common.note_begin(url)


def main():
    mode, url, count, _ = common.arguments()
    connection = redis.Redis.from_url(url)
    queue = rq.Queue(connection=connection)
    if mode == "enqueue":
        began = time.monotonic()
        for _ in range(count):
            queue.enqueue("rq_peer.nothing", common.PAYLOAD)
        common.rate(count, began)
        return
    command = [os.path.join(os.path.dirname(sys.executable), "rq"), "worker", "--quiet", "--url", url]
    here = os.path.dirname(os.path.abspath(__file__))
    environment = os.environ | {"PYTHONPATH": here}
    number = WORKERS if mode == "through" else 1
    workers = [subprocess.Popen(command, cwd=here, env=environment, stdout=subprocess.DEVNULL) for _ in range(number)]
    try:
        common.wait_until_empty(lambda: len(rq.Worker.all(connection=connection)) == number)
        if mode == "through":
            began = time.monotonic()
            for _ in range(count):
                queue.enqueue("rq_peer.nothing", common.PAYLOAD)
            common.wait_until_empty(lambda: queue.count == 0 and queue.started_job_registry.count == 0)
            common.rate(count, began)
        else:
            common.pickup(url, count, lambda: queue.enqueue("rq_peer.begin", url))
    finally:
        for worker in workers:
            worker.kill()


main() if __name__ == "__main__" else None
