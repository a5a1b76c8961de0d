// Java with threads, a pool, a collector at work and code that is compiled while it runs: rounds of work until DIR/finish is there,
// each judged against the first; then the result and "ok". Usage: java Work.java DIR
import java.io.File;
import java.io.FileOutputStream;
import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.locks.ReentrantLock;
import java.util.stream.LongStream;
import java.util.zip.CRC32;

public class Work {
    static final int THREADS = 6;

    static long sum(byte[] bytes) {
        CRC32 sum = new CRC32();
        sum.update(bytes);
        return sum.getValue();
    }

    // Threads that meet after every step, and add under a lock what they have.
    static long barrier() throws Exception {
        CyclicBarrier all = new CyclicBarrier(THREADS);
        ReentrantLock lock = new ReentrantLock();
        long[] total = new long[1];
        List<Thread> threads = new ArrayList<>();
        for (int n = 0; n < THREADS; n++) {
            long own = n + 1;
            Thread thread = new Thread(() -> {
                try {
                    for (int step = 0; step < 60; step++) {
                        long x = own * 31 + step;
                        for (int i = 0; i < 2000; i++)
                            x = x * 6364136223846793005L + 1442695040888963407L;
                        lock.lock();
                        try {
                            total[0] += x >>> 40;
                        } finally {
                            lock.unlock();
                        }
                        all.await();
                    }
                } catch (Exception error) {
                    throw new RuntimeException(error);
                }
            });
            thread.start();
            threads.add(thread);
        }
        for (Thread thread : threads)
            thread.join();
        return total[0];
    }

    // Much that lives for a short time, some that lives long.
    static long garbage() {
        Map<String, List<byte[]>> kept = new TreeMap<>();
        long total = 0;
        for (int i = 0; i < 30000; i++) {
            byte[] bytes = ("line " + i * 7919 + " of text").repeat(4).getBytes();
            if (i % 10 == 0)
                kept.computeIfAbsent("k" + i % 601, k -> new ArrayList<>()).add(bytes);
            total += bytes.length;
        }
        for (Map.Entry<String, List<byte[]>> entry : kept.entrySet())
            for (byte[] bytes : entry.getValue())
                total = total * 31 + sum(bytes);
        return total;
    }

    static long pool() throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(THREADS);
        try {
            ConcurrentHashMap<Integer, Long> table = new ConcurrentHashMap<>();
            List<Future<?>> all = new ArrayList<>();
            for (int task = 0; task < 200; task++) {
                int number = task;
                all.add(pool.submit(() -> {
                    HashMap<Integer, Integer> counts = new HashMap<>();
                    for (int i = 0; i < 500; i++)
                        counts.merge(i * number % 97, 1, Integer::sum);
                    table.merge(number % 13, (long) counts.hashCode(), Long::sum);
                }));
            }
            for (Future<?> one : all)
                one.get();
            return new TreeMap<>(table).toString().hashCode()
                + LongStream.range(0, 20000).parallel().map(i -> i * i % 10007).sum();
        } finally {
            pool.shutdown();
        }
    }

    static String round() throws Exception {
        return barrier() + " " + garbage() + " " + pool();
    }

    // Not by java.nio's channels, which keep an end of a Unix socket pair for themselves.
    static void append(File file, String text) throws IOException {
        try (FileOutputStream out = new FileOutputStream(file, true)) {
            out.write(text.getBytes());
        }
    }

    public static void main(String[] arguments) throws Exception {
        File place = new File(arguments[0]);
        try {
            String first = round();
            append(new File(place, "ready"), "");
            while (!new File(place, "finish").exists()) {
                String now = round();
                if (!now.equals(first))
                    throw new IllegalStateException("'" + now + "' instead of '" + first + "'");
                append(new File(place, "progress"), ".");
            }
            append(new File(place, "result"), first + "\n");
            append(new File(place, "verdict"), "ok\n");
        } catch (Throwable error) {
            append(new File(place, "verdict"), "Work.java: " + error + "\n");
            System.exit(1);
        }
    }
}
