# Associative arrays and string work, with the output in a file that stays open: rounds of work until DIR/finish is there,
# each judged against the first; then the log is read back, and the result and "ok" are written.
# Usage: awk -f words.awk DIR
function complain(text) {
    print "words.awk: " text >> (directory "/verdict")
    exit 1
}
function round(    x, i, count, word, total, key) {
    x = 4711
    for (i = 0; i < 60000; i++) {
        x = (x * 16807) % 2147483647
        word = sprintf("w%d", x % 3001)
        count[word]++
        if (length(word) == 4)
            gsub(/1/, "one", word)
        total += length(word)
    }
    for (key in count)
        total += count[key] * length(key)
    return total " " length(count) " " x
}
BEGIN {
    directory = ARGV[1]
    log_file = directory "/log"
    first = round()
    printf "" > (directory "/ready")
    close(directory "/ready")
    for (rounds = 0; (getline line < (directory "/finish")) < 0; rounds++) {
        now = round()
        if (now != first)
            complain("round " rounds ": " now " instead of " first)
        print rounds, now > log_file
        printf "." >> (directory "/progress")
        close(directory "/progress")
    }
    close(log_file)
    for (seen = 0; (getline line < log_file) > 0; seen++)
        if (line != seen " " first)
            complain("the log's line " seen " is " line)
    if (seen != rounds)
        complain(seen " lines for " rounds " rounds")
    print first > (directory "/result")
    print "ok" > (directory "/verdict")
}
