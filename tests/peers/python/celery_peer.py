"""Celery, with a worker of two processes that acknowledges late, so that a job whose worker dies is not lost."""

import os
import subprocess
import sys
import time

import celery
import redis

import common

app = celery.Celery("celery_peer", broker=os.environ.get("PEER_REDIS"))
app.conf.update(task_ignore_result=True, task_acks_late=True, worker_prefetch_multiplier=25)


@app.task
def nothing(_payload):
    """A job without work."""


@app.task
def begin(url):
    """A job that tells when it began."""
    common.note_begin(url)


def main():
    mode, url, count, _ = common.arguments()
    app.conf.broker_url = url
    if mode == "enqueue":
        began = time.monotonic()
        for _ in range(count):
            nothing.delay(common.PAYLOAD)
        common.rate(count, began)
        return
    here = os.path.dirname(os.path.abspath(__file__))
    command = [sys.executable, "-m", "celery", "-A", "celery_peer", "worker", "-c", "2", "--loglevel", "ERROR"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    worker = subprocess.Popen(command, cwd=here, env=os.environ | {"PEER_REDIS": url, "PYTHONWARNINGS": "ignore"}, stdout=subprocess.DEVNULL)
    try:
        # The first job shows that it is up.
        connection = redis.Redis.from_url(url)
        begin.delay(url)
        connection.blpop(common.BEGUN, timeout=60)
        if mode == "through":
            began = time.monotonic()
            for _ in range(count):
                nothing.delay(common.PAYLOAD)
            common.wait_until_empty(lambda: connection.llen("celery") == 0 and connection.hlen("unacked") == 0)
            common.rate(count, began)
        else:
            common.pickup(url, count, lambda: begin.delay(url))
    finally:
        worker.terminate()
        worker.wait()


main() if __name__ == "__main__" else None
