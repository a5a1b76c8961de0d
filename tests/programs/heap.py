"""Threads that compute over a large heap and write a file: rounds of work until DIR/finish is there, each judged against
the first; then the log is read back, and the result and "ok" are written. Usage: heap.py DIR"""
import hashlib, os, struct, sys, threading, zlib

directory = sys.argv[1]
os.chdir(directory)
THREADS, BLOCKS, BLOCK = 4, 96, 128 << 10  # 48 MiB in all

def complain(text):
    with open("verdict", "a") as verdict:
        verdict.write(f"heap.py: {text}\n")
    os._exit(1)

class Worker(threading.Thread):
    def __init__(self, number, barrier):
        super().__init__(name=f"worker {number}")
        self.number, self.barrier, self.digest, self.round = number, barrier, None, 0
        seed = hashlib.sha256(struct.pack("<I", number)).digest()
        self.blocks = []
        for i in range(BLOCKS):
            seed = hashlib.sha256(seed).digest()
            self.blocks.append(bytearray(seed * (BLOCK // len(seed))))
        self.table = {f"key {i}": (i, str(i) * 3) for i in range(20000)}

    def work(self):
        whole = hashlib.sha256()
        for i, block in enumerate(self.blocks):
            # There and back again: the heap is written all the time and yet the same after a round.
            block[i * 7 : i * 7 + 4096] = bytes(255 - b for b in block[i * 7 : i * 7 + 4096])
            whole.update(block)
            whole.update(struct.pack("<I", zlib.crc32(block)))
            block[i * 7 : i * 7 + 4096] = bytes(255 - b for b in block[i * 7 : i * 7 + 4096])
        total = sum(n * len(text) for n, text in self.table.values())
        whole.update(str(total).encode())
        return whole.hexdigest()

    def run(self):
        while True:
            try:
                digest = self.work()
            except BaseException as error:
                complain(f"{self.name}: {error!r}")
            if self.digest not in (None, digest):
                complain(f"{self.name}: {digest} in round {self.round}, {self.digest} before")
            self.digest, self.round = digest, self.round + 1
            if self.barrier.wait() is None or self.barrier.over:
                return

class Barrier(threading.Barrier):
    over = False

log = open("log", "w", buffering=300)
rounds = 0

def after_round():
    global rounds
    log.write(f"{rounds} {' '.join(w.digest for w in workers)}\n")
    rounds += 1
    if rounds == 1:
        open("ready", "w").close()
    with open("progress", "a") as progress:
        progress.write(".")
    if os.path.exists("finish"):
        barrier.over = True

barrier = Barrier(THREADS, action=after_round)
workers = [Worker(n, barrier) for n in range(THREADS)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
log.close()
with open("log") as lines:
    for number, line in enumerate(lines):
        if line != f"{number} {' '.join(w.digest for w in workers)}\n":
            complain(f"line {number} of the log is {line!r}")
if number + 1 != rounds:
    complain(f"{number + 1} lines for {rounds} rounds")
with open("result", "w") as result:
    result.write("\n".join(w.digest for w in workers))
with open("verdict", "w") as verdict:
    verdict.write("ok\n")
