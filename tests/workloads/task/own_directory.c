/* Threads with a working directory and umask of their own: one that has called unshare(2), two that share another one's, for it made
 * them, and two that share the first thread's. Round by round one of each group changes what its group has, and all look.
 */
#include "../workload.h"

enum { THREADS = 6, GROUPS = 3, PLACES = 4 };
/* The first of each group is the one that has its directory made. */
static const int group_of[THREADS] = { 0, 0, 1, 2, 2, 2 };
static char places[PLACES][400];
static _Atomic int turn, end, born;
static pthread_t threads[THREADS];

static int place_of(int group, int round)
{
    return (round * (group + 1) + group) % PLACES;
}

static mode_t mask_of(int group, int round)
{
    return 010 * ((round + group) % 8) + group;
}

static void settle(int group, int round)
{
    must(chdir(places[place_of(group, round)]));
    umask(mask_of(group, round));
}

static void look(int me, int round)
{
    int group = group_of[me];
    char here[400];
    check(getcwd(here, sizeof here) != NULL);
    mode_t mask = umask(0);
    umask(mask);
    check(strcmp(here, places[place_of(group, round)]) == 0 && mask == mask_of(group, round),
          "thread %d, round %d: mask %o in %.300s", me, round, mask, here);
}

static int changer(int group, int round)
{
    return group == 0 ? round % 2 : group == 1 ? 2 : 3 + round % 3;
}

/* First everybody looks, then one of each group changes it. */
static void take_turn(int me)
{
    int now = turn, step = now % (THREADS + GROUPS), round = now / (THREADS + GROUPS);
    if (step == me)
        look(me, round);
    else if (step >= THREADS && me == changer(step - THREADS, round))
        settle(group_of[me], round + 1);
    else
        return;
    turn = now + 1;
}

static void *run(void *number)
{
    int me = (int)(intptr_t)number;
    if (me == 2 || me == 3) {
        must(unshare(CLONE_FS));
        settle(group_of[me], 0);
    }
    born++;
    if (me == 3) {
        for (intptr_t other = 4; other < THREADS; other++)
            must_pthread(pthread_create(&threads[other], NULL, run, (void *)other));
    }
    while (born < THREADS)
        usleep(500);
    while (!end) {
        take_turn(me);
        usleep(300);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    for (int i = 0; i < PLACES; i++) {
        char name[16];
        snprintf(name, sizeof name, "place-%d", i);
        snprintf(places[i], sizeof places[i], "%.399s", data_path(name));
        must(mkdir(places[i], 0755));
    }
    settle(0, 0);
    for (intptr_t other = 1; other < 4; other++)
        must_pthread(pthread_create(&threads[other], NULL, run, (void *)other));
    for (born++; born < THREADS; usleep(500))
        ;
    loop_until_finish(take_turn(0));
    for (int last = turn + 3 * (THREADS + GROUPS); turn < last; usleep(300))
        take_turn(0);
    end = 1;
    for (int other = 1; other < THREADS; other++)
        must_pthread(pthread_join(threads[other], NULL));
    done();
}
