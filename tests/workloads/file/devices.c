/* The devices that hold no state: null, zero, full, random, urandom; with their flags, and still doing what they do. */
#include "../workload.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    int null = must(open("/dev/null", O_RDWR | O_APPEND)), zero = must(open("/dev/zero", O_RDWR)), full = must(open("/dev/full", O_RDWR | O_CLOEXEC));
    int random = must(open("/dev/random", O_RDONLY)), urandom = must(open("/dev/urandom", O_RDONLY | O_NONBLOCK));
    int all[5] = { null, zero, full, random, urandom }, flags[5];
    dev_t devices[5];
    struct stat status;
    for (int i = 0; i < 5; i++) {
        flags[i] = must(fcntl(all[i], F_GETFL));
        must(fstat(all[i], &status));
        devices[i] = status.st_rdev;
    }
    /* A private mapping of /dev/zero is anonymous memory with a name. */
    char *mapped = mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0);
    check(mapped != MAP_FAILED);
    fill(mapped, 4 * 4096, 6);
    loop_until_finish({
        char got[64];
        for (int i = 0; i < 5; i++) {
            must(fstat(all[i], &status));
            check(must(fcntl(all[i], F_GETFL)) == flags[i] && status.st_rdev == devices[i] && S_ISCHR(status.st_mode));
        }
        memset(got, 1, sizeof got);
        check(must(read(null, got, 64)) == 0 && must(write(null, got, 64)) == 64);
        check(must(read(zero, got, 64)) == 64 && got[0] == 0 && got[63] == 0);
        check(must(read(full, got, 64)) == 64 && write(full, got, 1) == -1 && errno == ENOSPC);
        check(must(read(random, got, 8)) == 8 && must(read(urandom, got, 64)) == 64);
        check(fcntl(full, F_GETFD) == FD_CLOEXEC);
        check_filled(mapped, 4 * 4096, 6, "mapping of /dev/zero");
    });
    check(mapped[5 * 4096] == 0);
    done();
}
