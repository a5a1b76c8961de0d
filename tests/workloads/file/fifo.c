/* FIFOs: one with both ends and a child that has the writing one too, grown, with bytes in it; one for both directions, in packets;
 * one whose reader waits for the first writer; one whose writer is gone and has left something; one whose reader is gone; and
 * one that lost its name.
 */
#include "../workload.h"
#include <sys/ioctl.h>

enum { GROWN = 1 << 17, BYTES = 90000 };

static int reader, writer, both, waiting, hung_up, broken, gone;
static int *const all[] = { &reader, &writer, &both, &waiting, &hung_up, &broken, &gone };
static int flags[7];

static int events(int fd)
{
    struct pollfd poll_fd = { fd, POLLIN | POLLOUT, 0 };
    must(poll(&poll_fd, 1, 0));
    return poll_fd.revents;
}

static int inside(int fd)
{
    int bytes;
    must(ioctl(fd, FIONREAD, &bytes));
    return bytes;
}

static void check_all(void)
{
    for (int i = 0; i < 7; i++)
        check(must(fcntl(*all[i], F_GETFL)) == flags[i], "%d: flags %#o, were %#o", i, fcntl(*all[i], F_GETFL), flags[i]);
    check(must(fcntl(reader, F_GETPIPE_SZ)) == GROWN);
    check(inside(reader) == BYTES, "%d", inside(reader));
    check(inside(both) == 9 && inside(hung_up) == 5 && inside(gone) == 4);
    check(events(waiting) == 0 && events(hung_up) == (POLLIN | POLLHUP), "%#x %#x", events(waiting), events(hung_up));
    check(events(broken) == (POLLOUT | POLLERR), "%#x", events(broken));
    char byte;
    check(must(read(waiting, &byte, 1)) == 0);
    check(write(broken, "x", 1) == -1 && errno == EPIPE);
}

static int make(const char *name, int mode)
{
    unlink(data_path(name));
    must(mkfifo(data_path(name), 0600));
    return must(open(data_path(name), mode));
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    static char block[BYTES], got[BYTES];
    signal(SIGPIPE, SIG_IGN);
    reader = make("fifo", O_RDONLY | O_NONBLOCK);
    writer = must(open(data_path("fifo"), O_WRONLY | O_APPEND));
    must(fcntl(reader, F_SETFL, O_RDONLY));
    must(fcntl(writer, F_SETPIPE_SZ, GROWN));
    fill(block, BYTES, 1);
    write_exactly(writer, block, BYTES);
    both = make("both", O_RDWR);
    must(fcntl(both, F_SETFL, O_RDWR | O_DIRECT));
    write_exactly(both, "one", 3);
    write_exactly(both, "two", 3);
    write_exactly(both, "six", 3);
    waiting = make("waiting", O_RDONLY | O_NONBLOCK);
    hung_up = make("hung-up", O_RDONLY | O_NONBLOCK);
    int fd = must(open(data_path("hung-up"), O_WRONLY));
    write_exactly(fd, "after", 5);
    must(close(fd));
    fd = make("broken", O_RDONLY | O_NONBLOCK);
    broken = must(open(data_path("broken"), O_WRONLY));
    must(close(fd));
    gone = make("gone", O_RDWR);
    must(unlink(data_path("gone")));
    write_exactly(gone, "gone", 4);
    for (int i = 0; i < 7; i++)
        flags[i] = must(fcntl(*all[i], F_GETFL));
    pid_t child = must(fork());
    if (child == 0) {
        must(close(reader));
        progress_as("child");
        while (!finishing()) {
            progress();
            sleep_ms(2);
        }
        write_exactly(writer, "child", 5);
        _exit(0);
    }
    must(close(writer));
    writer = must(open(data_path("fifo"), O_WRONLY | O_APPEND));
    ready();
    while (!finishing()) {
        check_all();
        progress();
        sleep_ms(2);
    }
    wait_exited(child, 0);
    read_exactly(reader, got, BYTES);
    check(memcmp(got, block, BYTES) == 0);
    read_exactly(reader, got, 5);
    check(memcmp(got, "child", 5) == 0);
    /* The name still leads to it. */
    fd = must(open(data_path("fifo"), O_WRONLY));
    write_exactly(fd, "by name", 7);
    must(close(fd));
    must(close(writer));
    check(must(read(reader, got, 100)) == 7 && memcmp(got, "by name", 7) == 0);
    check(must(read(reader, got, 1)) == 0);
    check(must(read(both, got, 100)) == 3 && memcmp(got, "one", 3) == 0);
    check(must(read(both, got, 100)) == 3 && must(read(both, got, 100)) == 3 && memcmp(got, "six", 3) == 0);
    check(must(read(hung_up, got, 100)) == 5 && memcmp(got, "after", 5) == 0);
    check(must(read(hung_up, got, 100)) == 0);
    fd = must(open(data_path("waiting"), O_WRONLY));
    write_exactly(fd, "at last", 7);
    check(must(read(waiting, got, 100)) == 7);
    must(close(fd));
    check(events(waiting) == POLLHUP);
    check(must(read(gone, got, 100)) == 4);
    write_exactly(gone, "still", 5);
    check(must(read(gone, got, 100)) == 5 && memcmp(got, "still", 5) == 0);
    done();
}
