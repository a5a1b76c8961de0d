/* Traces another process, as a debugger does, until DIR/tracer-finish is there: `tracer DIR PID`. */
#include "workload.h"
#include <sys/ptrace.h>

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    snprintf(workload_dir, sizeof workload_dir, "%s", argv[1]);
    snprintf(verdict_path, sizeof verdict_path, "%s/verdict", workload_dir);
    pid_t pid = atoi(argv[2]);
    char path[1024];
    must(ptrace(PTRACE_SEIZE, pid, 0, 0));
    snprintf(path, sizeof path, "%s/tracing", workload_dir);
    close(must(open(path, O_WRONLY | O_CREAT, 0644)));
    snprintf(path, sizeof path, "%s/tracer-finish", workload_dir);
    while (access(path, F_OK) == -1) {
        int status;
        if (waitpid(pid, &status, WNOHANG) == pid && WIFSTOPPED(status))
            must(ptrace(PTRACE_CONT, pid, 0, status >> 16 ? 0 : WSTOPSIG(status)));
        usleep(1000);
    }
    return 0;
}
