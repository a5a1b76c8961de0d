# A bash script with pipelines, subshells, background jobs, traps, here-documents, process substitution: rounds of work
# until DIR/finish is there, each judged against the first; then the result and "ok". Usage: jobs.bash DIR
set -u
cd "$1" || exit 2
trapped=0
trap 'trapped=$((trapped + 1))' USR1
trap 'echo "exit trap ran" >>result' EXIT
complain() { echo "jobs.bash: round $round: $*" >>verdict; exit 1; }

round() {
    # A pipeline of four.
    local sum
    sum=$(seq 1 3000 | sed 's/7/8/g' | awk '{ s += $1 } END { print s }' | tr -d '\n')
    # Background jobs, in subshells, whose exit statuses are waited for one by one.
    local jobs=() job i
    for i in 1 2 3 4; do
        ( n=0; for ((k = 0; k < 300 * i; k++)); do n=$(((n * 31 + k) % 65521)); done; exit $((n % 100)) ) &
        jobs+=($!)
    done
    local statuses=
    for job in "${jobs[@]}"; do
        wait "$job"
        statuses+=" $?"
    done
    # Here-documents and a here-string, through a subshell and a loop.
    local text
    text=$(
        while read -r a b; do echo "$b-$a"; done <<END
one first
two second
three third
END
        tr a-z A-Z <<<"string $sum"
    )
    # Process substitution, a coprocess of a kind, and a pipe into a loop.
    local same
    same=$(comm -12 <(seq 1 200 | sort) <(seq 100 300 | sort) | wc -l)
    local last
    last=$(seq 1 50 | while read -r n; do echo $((n * n)); done | tail -n 1)
    echo "$sum$statuses $same $last $text" | cksum
}

round=0
first=$(round) || exit 1
[ -n "$first" ] || complain "no result"
: >ready
while [ ! -e finish ]; do
    round=$((round + 1))
    now=$(round) || exit 1
    # A signal to itself, and one from a subshell; their traps run in between two commands.
    before=$trapped
    kill -USR1 $$
    ( kill -USR1 $$ )
    [ $((trapped - before)) = 2 ] || complain "$((trapped - before)) traps instead of 2"
    [ "$now" = "$first" ] || complain "'$now' instead of '$first'"
    printf . >>progress
done
echo "$first" >result
echo ok >verdict
