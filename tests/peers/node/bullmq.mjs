// BullMQ: producers and worker in one event loop.
//
// bullmq.mjs MODE REDIS_URL COUNT [CONCURRENCY]
import { Queue, Worker } from "bullmq";
import { Redis } from "ioredis";

const [mode, url, count, concurrency = "50"] = process.argv.slice(2);
const wanted = Number(count);
const atOnce = Number(concurrency);
const payload = "a task of two hundred bytes. ".repeat(7);
// Jobs before those that are timed.
const WARM = 30;
const connection = new Redis(url, { maxRetriesPerRequest: null });
const queue = new Queue("peers", { connection, defaultJobOptions: { removeOnComplete: true } });

const rate = (began) => console.log(wanted / ((performance.now() - began) / 1000));

async function enqueue() {
  const began = performance.now();
  for (let n = 0; n < wanted; n += 1) await queue.add("nothing", { payload });
  rate(began);
}

async function through() {
  let done = 0;
  let finish;
  const all = new Promise((resolve) => { finish = resolve; });
  const worker = new Worker("peers", async () => {}, { connection, concurrency: atOnce });
  worker.on("completed", () => { done += 1; if (done === wanted) finish(); });
  await worker.waitUntilReady();
  const began = performance.now();
  await Promise.all(Array.from({ length: atOnce }, async (_, first) => {
    for (let n = first; n < wanted; n += atOnce) await queue.add("nothing", { payload });
  }));
  await all;
  rate(began);
  await worker.close();
}

async function pickup() {
  let begun;
  const worker = new Worker("peers", async () => { begun(performance.now()); }, { connection });
  await worker.waitUntilReady();
  const taken = [];
  for (let n = 0; n < WARM + wanted; n += 1) {
    await new Promise((resolve) => { setTimeout(resolve, 4); });
    const at = new Promise((resolve) => { begun = resolve; });
    const began = performance.now();
    await queue.add("begin", {});
    const time = (await at) - began;
    if (n >= WARM) taken.push(time);
  }
  taken.sort((a, b) => a - b);
  const quantile = (share) => taken[Math.round((taken.length - 1) * share)];
  console.log(quantile(0.5), quantile(0.99));
  await worker.close();
}

await { enqueue, through, pickup }[mode]();
await queue.close();
connection.disconnect();
