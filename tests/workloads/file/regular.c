/* Regular files: offsets, access modes, status flags, two opens of one file, a sparse offset, a directory entry that is a
 * symbolic link, and O_PATH. After the checkpoint reads and writes go on where they were.
 */
#include "../workload.h"

enum { SIZE = 40000, OPENS = 10 };
static char block[SIZE];
static struct open_file {
    const char *name;
    int flags, fd;
    off_t offset;
    int status, descriptor;
} opens[OPENS] = {
    { "plain", O_RDONLY, 0, 100, 0, 0 },
    { "plain", O_RDWR, 0, 200, 0, 0 },
    { "plain", O_WRONLY | O_CLOEXEC, 0, 39000, 0, 0 },
    { "log", O_WRONLY | O_APPEND | O_CREAT, 0, 0, 0, 0 },
    { "plain", O_RDONLY | O_NONBLOCK | O_NOATIME, 0, 0, 0, 0 },
    { "synced", O_RDWR | O_CREAT | O_SYNC, 0, 7, 0, 0 },
    { "dsynced", O_RDWR | O_CREAT | O_DSYNC, 0, 9, 0, 0 },
    { "sparse", O_RDWR | O_CREAT | O_LARGEFILE, 0, 1l << 33, 0, 0 },
    { "link", O_RDONLY, 0, 5, 0, 0 },
    { "plain", O_PATH, 0, 0, 0, 0 },
};

static void compare(void)
{
    for (int i = 0; i < OPENS; i++) {
        struct open_file *o = &opens[i];
        check(must(fcntl(o->fd, F_GETFL)) == o->status, "%d: flags %#o, were %#o", i, fcntl(o->fd, F_GETFL), o->status);
        check(must(fcntl(o->fd, F_GETFD)) == o->descriptor);
        if (!(o->flags & O_PATH))
            check(must(lseek(o->fd, 0, SEEK_CUR)) == o->offset, "%d: offset %ld, was %ld", i, lseek(o->fd, 0, SEEK_CUR), o->offset);
    }
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    fill(block, SIZE, 3);
    int fd = must(open(data_path("plain"), O_RDWR | O_CREAT | O_TRUNC, 0640));
    write_exactly(fd, block, SIZE);
    must(close(fd));
    if (symlink("plain", data_path("link")) == -1)
        check(errno == EEXIST);
    for (int i = 0; i < OPENS; i++) {
        struct open_file *o = &opens[i];
        o->fd = must(open(data_path(o->name), o->flags, 0600));
        if (!(o->flags & O_PATH))
            must(lseek(o->fd, o->offset, SEEK_SET));
        o->status = must(fcntl(o->fd, F_GETFL));
        o->descriptor = must(fcntl(o->fd, F_GETFD));
    }
    write_exactly(opens[3].fd, "first line\n", 11);
    opens[3].offset = 11;
    loop_until_finish(compare());
    char got[1000];
    read_exactly(opens[0].fd, got, 1000);
    check(memcmp(got, block + 100, 1000) == 0);
    read_exactly(opens[1].fd, got, 500);
    check(memcmp(got, block + 200, 500) == 0);
    write_exactly(opens[1].fd, "written", 7);
    write_exactly(opens[2].fd, "tail", 4);
    check(read(opens[2].fd, got, 1) == -1 && errno == EBADF);
    check(write(opens[0].fd, got, 1) == -1 && errno == EBADF);
    check(must(pread(opens[0].fd, got, 7, 700)) == 7 && memcmp(got, "written", 7) == 0);
    check(must(pread(opens[0].fd, got, 4, 39000)) == 4 && memcmp(got, "tail", 4) == 0);
    must(lseek(opens[3].fd, 0, SEEK_SET));
    write_exactly(opens[3].fd, "second line\n", 12);
    fd = must(open(data_path("log"), O_RDONLY));
    read_exactly(fd, got, 23);
    check(memcmp(got, "first line\nsecond line\n", 23) == 0);
    check(must(read(fd, got, 1)) == 0);
    write_exactly(opens[7].fd, "far", 3);
    struct stat status;
    must(fstat(opens[7].fd, &status));
    check(status.st_size == (1l << 33) + 3);
    read_exactly(opens[8].fd, got, 10);
    check(memcmp(got, block + 5, 10) == 0);
    must(fstat(opens[9].fd, &status));
    check(status.st_size == SIZE);
    must(truncate(data_path("sparse"), 0));
    done();
}
