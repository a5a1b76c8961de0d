# Command-line tools at work, each on files that it makes for itself in DIR/work: rounds until DIR/finish is there, each judged
# against the first; then the result and "ok". Usage: tools.sh DIR xargs|git|gcc|rustc|convert
set -u
cd "$1" || exit 2
# Where rustup has its toolchains, before the home directory becomes this one.
export RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}"
export LC_ALL=C HOME="$1" TMPDIR="$1"

# Where the round's own checks write what they find.
fail() {
    echo "$what: $*" >>verdict
    exit 1
}

# Many small programs, four at a time.
prepare_xargs() {
    mkdir -p work/a/b work/a/c work/d
    for n in $(seq 1 60); do
        seq "$n" $((n * 40)) >"work/a/$n.txt"
        seq "$n" 3 $((n * 70)) >"work/a/b/file $n.txt"
        echo "$n" >"work/d/$n.other"
    done
}
round_xargs() {
    find work -type f -name '*.txt' -print0 | xargs -0 -n 3 -P 4 cksum | sort | cksum
    find work -type f | sort | xargs -d '\n' -P 3 -I{} sh -c 'wc -c <"$1" | sed s/1/2/' - {} | sort -n | uniq -c | cksum
    find work -name '*.other' -exec grep -c 1 {} + | awk -F: '{ s += $2 } END { print s }'
}

# A repository of some hundred versions; packed again, with threads, and checked.
prepare_git() {
    git init -q work
    git -C work config user.name nobody
    git -C work config user.email nobody@example.org
    for n in $(seq 1 25); do
        for file in 1 2 3 4; do
            seq "$n" "$file" $((n * 300 + file * 1000)) >"work/$file.txt"
        done
        git -C work add .
        GIT_AUTHOR_DATE="$n 0" GIT_COMMITTER_DATE="$((1600000000 + n)) +0000" git -C work commit -q -m "version $n" \
            --date="$((1600000000 + n)) +0000"
    done
}
round_git() {
    git -C work -c pack.threads=3 repack -q -a -d -f --depth=40 --window=40 || fail "repack: $?"
    git -C work fsck --full --strict 2>&1 || fail "fsck: $?"
    git -C work rev-list --objects --all | cksum
    git -C work cat-file --batch-check --batch-all-objects --unordered | sort | cksum
    git -C work log --stat --oneline | cksum
}

# A program of four files, compiled side by side, linked, and run.
prepare_gcc() {
    mkdir work
    for n in 1 2 3; do
        {
            echo '#include <stdio.h>'
            echo '#include <stdlib.h>'
            echo '#include <string.h>'
            for f in $(seq 1 60); do
                echo "unsigned f${n}_$f(unsigned x) { unsigned a[32]; memset(a, (int)x, sizeof a); for (unsigned i = 0; i < 300; i++)"
                echo "  a[i % 32] = a[(i * 7 + $f) % 32] * 31u + (x ^ i) % ($f + 3u); return a[5] ^ a[x % 32]; }"
            done
            echo "unsigned part$n(unsigned x) {"
            for f in $(seq 1 60); do
                echo "  x = f${n}_$f(x + $f);"
            done
            echo '  return x; }'
        } >"work/part$n.c"
    done
    printf '%s\n' '#include <stdio.h>' 'unsigned part1(unsigned), part2(unsigned), part3(unsigned);' \
        'int main(void) { printf("%u\n", part1(part2(part3(7)))); }' >work/main.c
}
round_gcc() {
    for n in 1 2 3; do
        gcc -O2 -c -o "work/part$n.o" "work/part$n.c" &
        compilers="${compilers:-} $!"
    done
    for compiler in $compilers; do
        wait "$compiler" || fail "gcc: $?"
    done
    compilers=
    gcc -pipe -O3 -o work/program work/main.c work/part1.o work/part2.o work/part3.o || fail "gcc: $?"
    cat work/part1.o work/part2.o work/part3.o | cksum
    work/program
}

# A library and a program, compiled by rustc's threads from nothing, and run.
prepare_rustc() {
    # The compiler itself: what stands on the PATH may be rustup, whose own start is of no interest here.
    rustc=$(rustc --print sysroot)/bin/rustc
    mkdir work
    printf '%s\n' 'use std::collections::BTreeMap;' 'pub fn count(text: &str) -> BTreeMap<char, usize> {' \
        '    let mut all = BTreeMap::new();' '    for c in text.chars() { *all.entry(c).or_insert(0) += 1; }' '    all' '}' \
        >work/library.rs
    for f in $(seq 1 15); do
        echo "#[inline(never)] pub fn f$f(x: &mut Vec<u64>) { x.sort_by_key(|y| y.wrapping_mul($f) % 1009); x.push($f); x.dedup(); }"
    done >>work/library.rs
    printf '%s\n' 'fn main() { println!("{:?}", library::count("a program built in the middle")); }' >work/program.rs
}
round_rustc() {
    "$rustc" -O --edition 2021 --crate-type rlib --crate-name library -C codegen-units=4 -o work/liblibrary.rlib work/library.rs ||
        fail "rustc: $?"
    "$rustc" -O --edition 2021 --extern library=work/liblibrary.rlib -o work/program work/program.rs || fail "rustc: $?"
    work/program
}

# Pictures made, changed and compared by their pixels.
prepare_convert() {
    mkdir work
}
round_convert() {
    convert -size 500x400 plasma:fractal -seed 7 work/plasma.png || fail "convert: $?"
    convert -size 400x300 gradient:red-blue -swirl 180 -blur 0x4 -rotate 33 work/swirl.png || fail "convert: $?"
    convert work/swirl.png -resize 300% -sharpen 0x2 -modulate 90,120 -colors 60 work/large.miff || fail "convert: $?"
    identify -format '%w %h %#\n' work/swirl.png work/large.miff
}


what=$2
rm -rf work
"prepare_$what" "$1" || fail "its files"
first=$("round_$what") || fail "$first"
[ -n "$first" ] || fail "no result"
: >ready
while [ ! -e finish ]; do
    now=$("round_$what") || fail "$now"
    [ "$now" = "$first" ] || fail "'$now' instead of '$first'"
    printf . >>progress
done
echo "$first" >result
echo ok >verdict
