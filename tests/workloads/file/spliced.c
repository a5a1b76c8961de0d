/* Pipes whose pages belong to others: of a file, spliced whole and in parts; of this process's memory, by vmsplice(2), also given
 * away; of another pipe, by tee(2). Nothing is taken out until the end; then every byte comes once, in order.
 */
#include "../workload.h"
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

enum { SIZE = 30000 };
static char block[SIZE], got[SIZE];

static int unread(int fd)
{
    int n;
    must(ioctl(fd, FIONREAD, &n));
    return n;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    fill(block, SIZE, 5);
    int file = must(open(data_path("file"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    write_exactly(file, block, SIZE);
    int whole[2], mixed[2], memory[2], gift[2], copy[2], last[2];
    must(pipe(whole));
    must(pipe(mixed));
    must(pipe(memory));
    must(pipe(gift));
    must(pipe(copy));
    must(pipe(last));
    loff_t at = 0;
    while (at < SIZE)
        check(must(splice(file, &at, whole[1], NULL, SIZE - at, 0)) > 0);
    /* Parts of pages, between bytes that were written. */
    write_exactly(mixed[1], "before", 6);
    at = 4000;
    check(must(splice(file, &at, mixed[1], NULL, 200, 0)) == 200);
    write_exactly(mixed[1], "between", 7);
    off_t from = 8191;
    check(must(sendfile(mixed[1], file, &from, 2)) == 2);
    write_exactly(mixed[1], "after", 5);
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(page != MAP_FAILED);
    memcpy(page, block, 8192);
    check(must(vmsplice(memory[1], &(struct iovec){ page + 100, 5000 }, 1, 0)) == 5000);
    char *given = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(given != MAP_FAILED);
    memcpy(given, block + 8192, 8192);
    check(must(vmsplice(gift[1], &(struct iovec){ given, 8192 }, 1, SPLICE_F_GIFT)) == 8192);
    must(munmap(given, 8192));
    check(must(tee(whole[0], copy[1], 10000, 0)) == 10000);
    /* Its last page has left the file. */
    int gone = must(open(data_path("gone"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    write_exactly(gone, block, 5000);
    at = 4096;
    check(must(splice(gone, &at, last[1], NULL, 904, 0)) == 904);
    must(unlink(data_path("gone")));
    must(close(gone));

    loop_until_finish({
        check(unread(whole[0]) == SIZE && unread(mixed[0]) == 220 && unread(memory[0]) == 5000);
        check(unread(gift[0]) == 8192 && unread(copy[0]) == 10000 && unread(last[0]) == 904);
        check(must(lseek(file, 0, SEEK_CUR)) == SIZE && memcmp(page, block, 8192) == 0);
    });

    read_exactly(whole[0], got, SIZE);
    check(memcmp(got, block, SIZE) == 0);
    read_exactly(copy[0], got, 10000);
    check(memcmp(got, block, 10000) == 0);
    read_exactly(mixed[0], got, 220);
    check(memcmp(got, "before", 6) == 0 && memcmp(got + 6, block + 4000, 200) == 0 && memcmp(got + 206, "between", 7) == 0);
    check(memcmp(got + 213, block + 8191, 2) == 0 && memcmp(got + 215, "after", 5) == 0);
    read_exactly(memory[0], got, 5000);
    check(memcmp(got, block + 100, 5000) == 0);
    read_exactly(gift[0], got, 8192);
    check(memcmp(got, block + 8192, 8192) == 0);
    read_exactly(last[0], got, 904);
    check(memcmp(got, block + 4096, 904) == 0);
    /* The pipe goes on as one. */
    at = 0;
    check(must(splice(file, &at, whole[1], NULL, 4096, 0)) > 0);
    read_exactly(whole[0], got, 1);
    check(got[0] == block[0]);
    done();
}
