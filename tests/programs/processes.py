# Python's multiprocessing: workers that share memory, counters, locks, a queue and a pool. Rounds until DIR/finish is there, each
# judged against the first; then the result and "ok". Usage: processes.py DIR
import multiprocessing as mp
import os
import sys
import zlib
from multiprocessing import shared_memory

WORKERS = 4
SIZE = 1 << 20


# Adds to one counter under its lock, and to every byte of the memory under another.
def add(number, counter, lock, name):
    memory = shared_memory.SharedMemory(name)
    for turn in range(40):
        with counter.get_lock():
            counter.value += number * turn
        with lock:
            start = (turn * 7919 * 4) % (SIZE - 4096)
            for at in range(start, start + 200):
                memory.buf[at] = (memory.buf[at] + number) % 256
    memory.close()


# Takes what is there until there is none left.
def take(tasks, results):
    for task in iter(tasks.get, None):
        results.put((task, zlib.crc32(str(task).encode() * task)))


def square(number):
    return sum(i * i % 10007 for i in range(number))


def shared():
    memory = shared_memory.SharedMemory(create=True, size=SIZE)
    counter, lock = mp.Value("q", 0), mp.RLock()
    try:
        workers = [mp.Process(target=add, args=(n + 1, counter, lock, memory.name)) for n in range(WORKERS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert all(worker.exitcode == 0 for worker in workers)
        return counter.value, zlib.crc32(memory.buf)
    finally:
        memory.close()
        memory.unlink()


def queues():
    tasks, results = mp.Queue(), mp.Queue()
    workers = [mp.Process(target=take, args=(tasks, results)) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for task in range(300):
        tasks.put(task)
    for _ in workers:
        tasks.put(None)
    done = sorted(results.get() for _ in range(300))
    for worker in workers:
        worker.join()
    return zlib.crc32(repr(done).encode())


def turn(pool):
    return [shared(), queues(), zlib.crc32(repr(pool.map(square, range(0, 8000, 80))).encode())]


def main():
    os.chdir(sys.argv[1])
    mp.set_start_method("fork")
    try:
        with mp.Pool(WORKERS) as pool:
            first = turn(pool)
            open("ready", "w").close()
            while not os.path.exists("finish"):
                now = turn(pool)
                if now != first:
                    raise RuntimeError(f"{now} instead of {first}")
                with open("progress", "a") as progress:
                    progress.write(".")
            pool.close()
            pool.join()
    except Exception as error:
        with open("verdict", "w") as verdict:
            verdict.write(f"processes.py: {error!r}\n")
        raise
    with open("result", "w") as result:
        result.write(f"{first}\n")
    with open("verdict", "w") as verdict:
        verdict.write("ok\n")


main()
