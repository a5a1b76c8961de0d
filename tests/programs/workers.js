// node with timers, worker threads and child processes: rounds of work until DIR/finish is there, each judged against the first; then
// the result and "ok". Usage: workers.js DIR
"use strict";
const { Worker, isMainThread, parentPort } = require("worker_threads");
const { spawn } = require("child_process");
const crypto = require("crypto");
const fs = require("fs");
const zlib = require("zlib");

if (!isMainThread) {
  // A worker: tasks by messages, a counter in shared memory.
  parentPort.on("message", ({ task, shared }) => {
    const counter = new Int32Array(shared);
    let x = task + 1;
    for (let i = 0; i < 200000; i++) x = (Math.imul(x, 1664525) + 1013904223) | 0;
    Atomics.add(counter, 0, x & 1023);
    parentPort.postMessage({ task, x });
  });
  return;
}

process.chdir(process.argv[2]);

const workers = [1, 2, 3].map(() => new Worker(__filename));

async function threads() {
  const shared = new SharedArrayBuffer(4);
  const results = await Promise.all(
    workers.map(
      (worker, at) =>
        new Promise((done) => {
          const all = [];
          worker.on("message", function take({ task, x }) {
            all.push(`${task}:${x}`);
            if (all.length === 8) {
              worker.off("message", take);
              done(all.join(" "));
            }
          });
          for (let task = 0; task < 8; task++) worker.postMessage({ task: at * 8 + task, shared });
        }),
    ),
  );
  return results.join(" ") + " " + new Int32Array(shared)[0];
}

async function timers() {
  const order = [];
  const wait = (ms, name) => new Promise((done) => setTimeout(() => done(order.push(name)), ms));
  await wait(20, "a").then(() => wait(10, "b"));
  let ticks = 0;
  await new Promise((done) => {
    const interval = setInterval(() => {
      if (++ticks === 5) done(clearInterval(interval));
    }, 4);
  });
  await new Promise((done) => setImmediate(done));
  return order.join("") + ticks;
}

// A child that writes into a file.
async function children() {
  const file = fs.openSync("child", "w+");
  const child = spawn("sh", ["-c", "seq 1 3000 | cksum; exit 3"], { stdio: ["ignore", file, "inherit"] });
  const code = await new Promise((done, fail) => child.on("exit", done).on("error", fail));
  fs.closeSync(file);
  return `${code} ${fs.readFileSync("child", "utf8").trim()}`;
}

// What runs in the threads of libuv: files, compression, keys.
async function pool() {
  const text = Array.from({ length: 20000 }, (_, i) => (i * 7919) % 613).join(",");
  await fs.promises.writeFile("text", text);
  const read = await fs.promises.readFile("text");
  const packed = await new Promise((done, fail) => zlib.gzip(read, (e, b) => (e ? fail(e) : done(b))));
  const back = await new Promise((done, fail) => zlib.gunzip(packed, (e, b) => (e ? fail(e) : done(b))));
  const key = await new Promise((done, fail) =>
    crypto.pbkdf2(back, "salt", 2000, 16, "sha256", (e, k) => (e ? fail(e) : done(k))),
  );
  return key.toString("hex");
}

const round = async () => (await Promise.all([threads(), timers(), children(), pool()])).join(" ");

async function main() {
  const first = await round();
  fs.writeFileSync("ready", "");
  while (!fs.existsSync("finish")) {
    const now = await round();
    if (now !== first) throw new Error(`'${now}' instead of '${first}'`);
    fs.appendFileSync("progress", ".");
  }
  fs.writeFileSync("result", first + "\n");
  fs.writeFileSync("verdict", "ok\n");
}

main().then(
  () => process.exit(0),
  (error) => {
    fs.writeFileSync("verdict", `workers.js: ${error.message}\n`);
    process.exit(1);
  },
);
