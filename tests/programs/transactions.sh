# sqlite3 in the middle of transactions: with a rollback journal (locks on the database, a file beside it that comes and goes),
# and with a write-ahead log (shared memory in a file). Rounds until DIR/finish is there, each judged against the first; then the
# result and "ok". Usage: transactions.sh DIR delete|wal
set -u
cd "$1" || exit 2
mode=$2

# A table filled, changed, half of it taken back; then what is in it, and whether the file is whole.
round() {
    sqlite3 -batch -bail database <<END
pragma journal_mode = $mode;
pragma synchronous = off;
pragma cache_size = 50;
drop table if exists t;
begin immediate;
create table t (id integer primary key, text, number);
with recursive n (i) as (select 1 union all select i + 1 from n where i < 20000)
    insert into t select i, hex(i * 7919) || ' line', (i * i) % 10007 from n;
create index numbers on t (number, text);
commit;
begin exclusive;
update t set number = number + 1, text = text || '+' where id % 3 = 0;
savepoint here;
delete from t where number % 2 = 0;
select count(*), sum(number) from t;
rollback to here;
delete from t where id % 5 = 0;
commit;
begin immediate;
delete from t;
select count(*) from t;
rollback;
select count(*), sum(number), sum(length(text)), max(text) from t;
pragma integrity_check;
END
}

fail() {
    echo "sqlite3: $*" >>verdict
    exit 1
}

first=$(round) || fail "status $?"
case $first in
*ok) ;;
*) fail "'$first'" ;;
esac
: >ready
while [ ! -e finish ]; do
    now=$(round) || fail "status $?"
    [ "$now" = "$first" ] || fail "'$now' instead of '$first'"
    printf . >>progress
done
echo "$first" >result
echo ok >verdict
