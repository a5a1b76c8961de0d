/* Sealed memory (mseal(2), Linux 6.10): nobody may unmap it, move it, protect it otherwise; what it holds can still be
 * written where it is writable.
 */
#include "../workload.h"
#ifndef SYS_mseal
#define SYS_mseal 462
#endif

enum { SIZE = 4 * 4096 };
static char *writable, *readable, *file, *locked;
static bool can_seal;

static bool seal(void *at, size_t size)
{
    if (syscall(SYS_mseal, at, size, 0) == 0)
        return true;
    check(errno == ENOSYS);
    return false;
}

static void check_sealed(char *at)
{
    if (!can_seal)
        return;
    check(munmap(at, 4096) == -1 && errno == EPERM);
    check(mprotect(at, 4096, PROT_NONE) == -1 && errno == EPERM);
    check(mremap(at, 4096, 8192, MREMAP_MAYMOVE) == MAP_FAILED && errno == EPERM);
}

static void check_all(void)
{
    check_sealed(writable);
    check_sealed(readable);
    check_sealed(file);
    check_sealed(locked);
    check_filled(writable, SIZE, 1, "sealed, writable");
    check_filled(readable, SIZE, 2, "sealed, readable");
    check_filled(file, 4096, 3, "sealed, of a file");
    check_filled(locked, SIZE, 4, "sealed, locked");
    check(!can_seal || (madvise(readable, 4096, MADV_DONTNEED) == -1 && errno == EPERM));
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    writable = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *gap = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    readable = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    locked = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = must(open(data_path("file"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    must(ftruncate(fd, SIZE));
    file = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    must(close(fd));
    check(writable != MAP_FAILED && gap != MAP_FAILED && readable != MAP_FAILED && file != MAP_FAILED);
    fill(writable, SIZE, 1);
    fill(readable, SIZE, 2);
    fill(file, 4096, 3);
    fill(locked, SIZE, 4);
    must(mprotect(readable, SIZE, PROT_READ));
    must(mlock(locked, SIZE));
    can_seal = seal(writable, SIZE) && seal(readable, SIZE) && seal(file, SIZE) && seal(locked, SIZE);
    loop_until_finish(check_all());
    fill(writable, SIZE, 9);
    check_filled(writable, SIZE, 9, "written after all");
    must(munmap(gap, SIZE));
    done();
}
