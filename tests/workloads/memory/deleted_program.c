/* A program whose own file was deleted while it runs: it copies itself, becomes the copy, and unlinks it. What it hasn't used
 * yet of its code and data must come from the file that isn't there any more, and where the link to it leads there it must be.
 */
#include "../workload.h"

enum { TABLE = 64 * 4096 };
/* Pages of the file that nobody looks at before the end. */
__attribute__((aligned(4096))) static const unsigned char untouched[TABLE] = { [0] = 1, [TABLE / 2] = 2, [TABLE - 1] = 3 };
__attribute__((aligned(4096))) static volatile unsigned char written[TABLE] = { [0] = 1, [4096] = 2, [TABLE - 1] = 3 };

static void copy(const char *from, const char *to)
{
    int in = must(open(from, O_RDONLY | O_CLOEXEC)), out = must(open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755));
    char block[1 << 16];
    ssize_t n;
    while ((n = must(read(in, block, sizeof block))) > 0)
        write_exactly(out, block, n);
    must(close(in)), must(close(out));
}

__attribute__((noinline, aligned(4096))) static int never_called_before(int x)
{
    return x * 3 + 1;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    if (argc == 2 || strcmp(argv[2], "again") != 0) {
        const char *program = data_path("copy");
        copy("/proc/self/exe", program);
        must(execv(program, (char *[]){ argv[0], argv[1], "again", argv[2], NULL }));
    }
    must(unlink(data_path("copy")));
    written[4096] = 9;
    loop_until_finish(check(written[4096] == 9 && written[0] == 1));
    check(untouched[0] == 1 && untouched[TABLE / 2] == 2 && untouched[TABLE - 1] == 3);
    check(written[TABLE - 1] == 3);
    int (*volatile function)(int) = never_called_before;
    check(function(5) == 16);
    /* The link may lead to another program where the kernel doesn't let us set it; if it leads to ours, to all of it. */
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    struct stat stat;
    check(fd >= 0 && fstat(fd, &stat) == 0 && stat.st_size > TABLE);
    char magic[4];
    read_exactly(fd, magic, 4);
    check(memcmp(magic, "\177ELF", 4) == 0);
    must(close(fd));
    done();
}
