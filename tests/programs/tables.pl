# Hashes, regular expressions, sorting and a pipe to another program: rounds of work until DIR/finish is there, each judged
# against the first; then the result and "ok". Usage: tables.pl DIR
use strict;
use warnings;

my $directory = shift;
chdir $directory or die "$directory: $!";

sub complain {
    open my $verdict, '>>', 'verdict' or die;
    print $verdict "tables.pl: @_\n";
    exit 1;
}

open my $log, '+>', 'log' or complain "log: $!";

sub round {
    my $x = 12345;
    my %count;
    for (1 .. 40000) {
        $x = ($x * 1103515245 + 12345) % 2147483648;
        my $word = sprintf '%x', $x % 5000;
        $count{$word}++ if $word !~ /[de]$/;
    }
    my $text = join ' ', map { "$_=$count{$_}" } sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
    (my $changed = $text) =~ s/(\w+)=(\d+)/$2:$1/g;
    # Through another program, both ways.
    my $file = "words";
    open my $sort, '|-', "sort -u >$file" or complain "sort: $!";
    print $sort "$_\n" for split / /, $changed;
    close $sort or complain "sort ended with $?";
    open my $sum, '-|', 'cksum', $file or complain "cksum: $!";
    my $line = <$sum>;
    close $sum or complain "cksum ended with $?";
    return unpack('%32C*', $text) . " " . length($changed) . " $line";
}

my $rounds = 0;
my $first = round();
open my $ready, '>', 'ready' or complain "ready: $!";
close $ready;
until (-e 'finish') {
    my $now = round();
    complain "round $rounds: $now instead of $first" if $now ne $first;
    print $log $rounds++, " $now";
    open my $progress, '>>', 'progress' or complain "progress: $!";
    print $progress '.';
    close $progress;
}
seek $log, 0, 0;
my $seen = 0;
while (<$log>) {
    complain "the log's line $seen is $_" if $_ ne "$seen $first";
    $seen++;
}
complain "$seen lines for $rounds rounds" if $seen != $rounds;
open my $result, '>', 'result' or complain "result: $!";
print $result $first;
close $result;
open my $verdict, '>', 'verdict' or die;
print $verdict "ok\n";
