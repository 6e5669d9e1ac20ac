"""arq: producers and worker in one event loop. It polls; 10 ms instead of the half second that it waits by default."""

import asyncio
import logging
import time

import arq
from arq.connections import RedisSettings

import common

POLL = 0.01
state = {"done": 0, "wanted": 0, "all": None, "at": None}


async def nothing(_context, _payload):
    """A job without work; the last one tells so."""
    state["done"] += 1
    if state["done"] == state["wanted"]:
        state["all"].set()


async def begin(_context):
    """A job that tells when it began."""
    state["at"].set_result(time.monotonic_ns())


async def main():
    mode, url, count, concurrency = common.arguments()
    settings = RedisSettings.from_dsn(url)
    pool = await arq.create_pool(settings)
    if mode == "enqueue":
        began = time.monotonic()
        for _ in range(count):
            await pool.enqueue_job("nothing", common.PAYLOAD)
        common.rate(count, began)
        return
    worker = arq.Worker(
        functions=[nothing, begin], redis_settings=settings, max_jobs=concurrency, poll_delay=POLL,
        queue_read_limit=concurrency * 5, keep_result=0, handle_signals=False,
    )
    running = asyncio.ensure_future(worker.async_run())
    if mode == "through":
        state.update(wanted=count, all=asyncio.Event())
        began = time.monotonic()

        async def submit(first):
            for _ in range(first, count, concurrency):
                await pool.enqueue_job("nothing", common.PAYLOAD)

        await asyncio.gather(*(submit(first) for first in range(concurrency)))
        await state["all"].wait()
        common.rate(count, began)
    else:
        taken = []
        for number in range(common.WARM + count):
            await asyncio.sleep(0.004)
            state["at"] = asyncio.get_running_loop().create_future()
            began = time.monotonic_ns()
            await pool.enqueue_job("begin")
            at = await state["at"]
            if number >= common.WARM:
                taken.append((at - began) / 1e6)
        common.times(taken)
    running.cancel()


logging.disable(logging.CRITICAL)
asyncio.run(main())
