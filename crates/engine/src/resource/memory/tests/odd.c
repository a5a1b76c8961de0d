/* Memory that can't be saved, one area of every kind that this kernel makes: `odd DIR` says which codes it expects on one
 * line, then "ready", and waits. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#define P 4096ul
#define CHECK(x) ((long)(x) == -1 ? perror(#x), exit(1) : (void)0)

static void *map(int flags, int fd)
{
    return mmap(NULL, 4 * P, PROT_READ | PROT_WRITE, flags, fd, 0);
}

static void expect(const char *code)
{
    printf("%s ", code);
}

/* A file that processes share, and that can still be found, by a name that nobody knows. */
static void mapped_file(const char *name, const char *other)
{
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(fd), CHECK(ftruncate(fd, 4 * P)), CHECK(map(MAP_SHARED, fd)), CHECK(link(name, other)), CHECK(unlink(name));
    close(fd);
}

int main(int argc, char **argv)
{
    const int anonymous = MAP_PRIVATE | MAP_ANONYMOUS;
    void *at;
    int fd;

    CHECK(chdir(argv[1]));
    mapped_file("one", "other"), expect("memory/other-name");
    if ((fd = shmget(IPC_PRIVATE, 4 * P, 0600)) != -1)
        CHECK(shmat(fd, NULL, 0)), shmctl(fd, IPC_RMID, NULL), expect("memory/sysv");
    if (map(anonymous | MAP_HUGETLB | MAP_NORESERVE, -1) != MAP_FAILED)
        expect("memory/hugetlb");
    if ((fd = syscall(447 /* memfd_secret */, 0)) != -1 && ftruncate(fd, 4 * P) == 0 && map(MAP_SHARED, fd) != MAP_FAILED)
        expect("memory/secret");
    unsigned long aio = 0;
    if (syscall(SYS_io_setup, 8, &aio) == 0)
        expect("memory/aio");
    char params[120] = { 0 };
    if ((fd = syscall(425 /* io_uring_setup */, 8, params)) != -1 && map(MAP_SHARED, fd) != MAP_FAILED)
        expect("memory/device");
    struct uffdio_api api = { .api = UFFD_API };
    if ((fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY)) != -1 && ioctl(fd, UFFDIO_API, &api) == 0) {
        at = map(anonymous, -1);
        struct uffdio_register range = { { (unsigned long)at, 4 * P }, UFFDIO_REGISTER_MODE_MISSING, 0 };
        if (ioctl(fd, UFFDIO_REGISTER, &range) == 0)
            expect("memory/userfaultfd");
    }
    puts("\nready"), fflush(stdout);
    pause();
    return 0;
}
