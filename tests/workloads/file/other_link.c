/* A file whose name was removed, and that has another one: what is written by that name is read by the old descriptor. The
 * other name is beside the old one, or in the working directory.
 */
#include "../workload.h"

static int near, far;

static void check_all(void)
{
    char block[100];
    check(must(pread(near, block, 100, 0)) == 4 && memcmp(block, "near", 4) == 0);
    check(must(pread(far, block, 100, 0)) == 3 && memcmp(block, "far", 3) == 0);
    check(must(lseek(near, 0, SEEK_CUR)) == 4 && must(lseek(far, 0, SEEK_CUR)) == 1);
}

static int make(const char *name, const char *other, const char *text)
{
    char path[1024];
    int fd = must(open(data_path(name), O_RDWR | O_CREAT | O_TRUNC, 0600));
    write_exactly(fd, text, strlen(text));
    snprintf(path, sizeof path, "%s", data_path(name));
    unlink(data_path(other));
    must(link(path, data_path(other)));
    must(unlink(path));
    return fd;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    /* Both lie side by side in the table: see the test. */
    check((near = make("old", "other", "near")) == 3);
    mkdir(data_path("directory"), 0700);
    check((far = make("gone", "directory/other", "far")) == 4);
    must(chdir(data_path("directory")));
    must(lseek(far, 1, SEEK_SET));
    loop_until_finish(check_all());
    char block[100];
    int fd = must(open(data_path("other"), O_WRONLY | O_APPEND));
    write_exactly(fd, "er", 2);
    check(must(pread(near, block, 100, 0)) == 6 && memcmp(block, "nearer", 6) == 0);
    fd = must(open("other", O_RDONLY));
    write_exactly(far, "un", 2);
    read_exactly(fd, block, 3);
    check(memcmp(block, "fun", 3) == 0);
    done();
}
