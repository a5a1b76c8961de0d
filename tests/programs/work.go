// Go with thousands of goroutines: channels, locks, timers, garbage. Rounds of work until DIR/finish is there, each judged against
// the first; then the result and "ok". Usage: work DIR
package main

import (
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"time"
)

const many = 3000

// A ring: a number goes round through all of them, and each changes it.
func ring() uint64 {
	first := make(chan uint64)
	last := first
	for i := 0; i < many; i++ {
		next := make(chan uint64)
		go func(from, to chan uint64, own uint64) {
			for x := range from {
				to <- x*6364136223846793005 + own
			}
			close(to)
		}(last, next, uint64(i))
		last = next
	}
	go func() {
		for turn := uint64(0); turn < 10; turn++ {
			first <- turn
		}
		close(first)
	}()
	var sum uint64
	for x := range last {
		sum = sum*31 + x
	}
	return sum
}

// All at once, into one table under a lock; half of them sleep before.
func table() uint32 {
	var all sync.WaitGroup
	var lock sync.Mutex
	counts := map[string]int{}
	for i := 0; i < many; i++ {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			if i%2 == 0 {
				time.Sleep(time.Duration(i%17) * time.Millisecond)
			}
			text := strings.Repeat(fmt.Sprint(i*7919%613), 20)
			lock.Lock()
			counts[text] += len(text)
			lock.Unlock()
		}(i)
	}
	all.Wait()
	keys := make([]string, 0, len(counts))
	for key := range counts {
		keys = append(keys, fmt.Sprint(key, counts[key]))
	}
	sort.Strings(keys)
	return crc32.ChecksumIEEE([]byte(strings.Join(keys, ",")))
}

// Loops that never call anything: they are interrupted by signals.
func loops() uint64 {
	results := make(chan uint64)
	for n := uint64(1); n <= 4; n++ {
		go func(x uint64) {
			for i := 0; i < 3000000; i++ {
				x ^= x << 13
				x ^= x >> 7
				x ^= x << 17
			}
			results <- x
		}(n)
	}
	var sum uint64
	for n := 0; n < 4; n++ {
		sum += <-results
	}
	return sum
}

func round() string {
	return fmt.Sprint(ring(), table(), loops())
}

func main() {
	place := os.Args[1]
	write := func(name, text string) {
		file, err := os.OpenFile(filepath.Join(place, name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			panic(err)
		}
		defer file.Close()
		if _, err := file.WriteString(text); err != nil {
			panic(err)
		}
	}
	first := round()
	write("ready", "")
	for {
		if _, err := os.Stat(filepath.Join(place, "finish")); err == nil {
			break
		}
		if now := round(); now != first {
			write("verdict", fmt.Sprintf("work.go: '%s' instead of '%s'\n", now, first))
			os.Exit(1)
		}
		write("progress", ".")
	}
	write("result", first+"\n")
	write("verdict", "ok\n")
}
