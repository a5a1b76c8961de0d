/* Pipes: data under way, in packets too, of another size, with several openings of an end, with the other end closed, without
 * blocking. Everything is looked at without changing it until the end; then every byte comes once, in order.
 */
#include "../workload.h"
#include <sys/ioctl.h>

static int unread(int fd)
{
    int n;
    must(ioctl(fd, FIONREAD, &n));
    return n;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    char block[20000], got[20000];
    fill(block, sizeof block, 2);
    int plain[2], packets[2], large[2], no_writer[2], no_reader[2], empty[2], full[2];
    must(pipe(plain));
    write_exactly(plain[1], block, sizeof block);
    read_exactly(plain[0], got, 777); /* the first page is half read */
    must(pipe2(packets, O_DIRECT | O_CLOEXEC));
    for (int i = 1; i <= 10; i++)
        check(must(write(packets[1], block, i * 100)) == i * 100);
    must(pipe(large));
    int size = must(fcntl(large[1], F_SETPIPE_SZ, 1 << 18));
    for (int i = 0; i < 10; i++)
        write_exactly(large[1], block, sizeof block);
    must(pipe(no_writer));
    write_exactly(no_writer[1], "last words", 10);
    must(close(no_writer[1]));
    must(pipe(no_reader));
    must(close(no_reader[0]));
    must(pipe2(empty, O_NONBLOCK));
    must(pipe2(full, O_NONBLOCK));
    size_t filled = 0;
    for (ssize_t n; (n = write(full[1], block, 1000)) > 0;)
        filled += n;
    check(errno == EAGAIN);
    /* More openings of the same pipe, as /dev/fd gives them: own status flags, one of them for both directions. */
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", plain[0]);
    int again = must(open(path, O_RDONLY | O_NONBLOCK)), both = must(open(path, O_RDWR));
    int copy = must(dup(plain[1]));
    must(signal(SIGPIPE, SIG_IGN) == SIG_ERR ? -1 : 0);
    loop_until_finish({
        check(unread(plain[0]) == (int)sizeof block - 777 && unread(again) == unread(both));
        check(unread(packets[0]) == 5500 && unread(large[0]) == 10 * (int)sizeof block);
        check(unread(full[0]) == (int)filled && unread(empty[0]) == 0 && unread(no_writer[0]) == 10);
        check(must(fcntl(large[0], F_GETPIPE_SZ)) == size && must(fcntl(plain[0], F_GETPIPE_SZ)) == 65536);
        check(must(fcntl(packets[1], F_GETFL)) & O_DIRECT); /* packet mode is the writing end's */
        check(must(fcntl(again, F_GETFL)) & O_NONBLOCK && !(must(fcntl(plain[0], F_GETFL)) & O_NONBLOCK));
        check((must(fcntl(both, F_GETFL)) & O_ACCMODE) == O_RDWR);
        check(read(empty[0], got, 1) == -1 && errno == EAGAIN);
        check(write(full[1], block, 5000) == -1 && errno == EAGAIN);
        check(write(no_reader[1], "x", 1) == -1 && errno == EPIPE);
        struct pollfd fds[3] = { { no_writer[0], POLLIN, 0 }, { no_reader[1], POLLOUT, 0 }, { empty[0], POLLIN, 0 } };
        must(poll(fds, 3, 0));
        check(fds[0].revents == (POLLIN | POLLHUP) && fds[1].revents & POLLERR && fds[2].revents == 0);
    });
    read_exactly(again, got, 10000);
    check(memcmp(got, block + 777, 10000) == 0);
    read_exactly(plain[0], got, sizeof block - 10777);
    check(memcmp(got, block + 10777, sizeof block - 10777) == 0);
    must(close(plain[1]));
    must(close(both));
    write_exactly(copy, "more", 4);
    must(close(copy));
    read_exactly(plain[0], got, 4);
    check(must(read(plain[0], got, 1)) == 0, "a writer of the pipe is left");
    for (int i = 1; i <= 10; i++)
        check(must(read(packets[0], got, sizeof got)) == i * 100 && memcmp(got, block, i * 100) == 0, "packet %d", i);
    for (int i = 0; i < 10; i++) {
        read_exactly(large[0], got, sizeof got);
        check(memcmp(got, block, sizeof got) == 0);
    }
    read_exactly(no_writer[0], got, 10);
    check(memcmp(got, "last words", 10) == 0 && must(read(no_writer[0], got, 1)) == 0);
    must(fcntl(full[0], F_SETFL, 0));
    while (filled) {
        size_t part = filled < 1000 ? filled : 1000;
        read_exactly(full[0], got, part);
        check(memcmp(got, block, part) == 0);
        filled -= part;
    }
    check(unread(full[0]) == 0);
    done();
}
