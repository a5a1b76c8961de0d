/* Pipes between processes: a chain of four, each passing a stream on, changed; what comes out is compared byte by byte with what
 * was put in. There is always data in every pipe. The ends belong to different processes.
 */
#include "../workload.h"

enum { LINKS = 4 };

int main(int argc, char **argv)
{
    begin(argc, argv);
    int in[2], out[2] = { -1, -1 };
    must(pipe(in));
    int head = in[1];
    int from = in[0];
    pid_t children[LINKS];
    for (int i = 0; i < LINKS; i++) {
        must(pipe(out));
        if ((children[i] = must(fork())) == 0) {
            char name[16], buffer[1500];
            snprintf(name, sizeof name, "link%d", i);
            progress_as(name);
            close(head);
            close(out[0]);
            ssize_t n;
            while ((n = must(read(from, buffer, 700 + i * 150))) > 0) {
                for (ssize_t at = 0; at < n; at++)
                    buffer[at] += i + 1;
                write_exactly(out[1], buffer, n);
                progress();
            }
            _exit(0);
        }
        close(from);
        close(out[1]);
        from = out[0];
    }
    pid_t writer = must(fork());
    if (writer == 0) {
        close(from);
        progress_as("writer");
        unsigned char buffer[1000];
        for (uint64_t at = 0; !finishing(); at += sizeof buffer) {
            for (size_t i = 0; i < sizeof buffer; i++)
                buffer[i] = (at + i) * 31 + ((at + i) >> 8);
            write_exactly(head, buffer, sizeof buffer);
            progress();
        }
        _exit(0);
    }
    must(close(head));
    ready();
    unsigned char buffer[4096];
    uint64_t at = 0;
    ssize_t n;
    while ((n = must(read(from, buffer, sizeof buffer))) > 0) {
        for (ssize_t i = 0; i < n; i++, at++)
            check(buffer[i] == (unsigned char)(at * 31 + (at >> 8) + 10), "byte %lu", at);
        progress();
    }
    check(at % 1000 == 0 && at > 0);
    for (int i = 0; i < LINKS; i++)
        wait_exited(children[i], 0);
    wait_exited(writer, 0);
    done();
}
