/* A process that made itself undumpable (prctl(PR_SET_DUMPABLE)): its /proc belongs to root, and it stays so. */
#include "../workload.h"

int main(int argc, char **argv)
{
    begin(argc, argv);
    must(prctl(PR_SET_DUMPABLE, 0));
    loop_until_finish(check(prctl(PR_GET_DUMPABLE) == 0));
    done();
}
