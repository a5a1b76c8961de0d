/* Watches of a directory, a file, a file without a name, a FIFO; with gaps between their numbers, one-shot ones that have fired
 * or not, and one that leaves out what was unlinked. Every round does things to them and reads of exactly these. What a
 * restart does to files must not be among them, and numbers that were given once aren't given again.
 */
#include "../workload.h"
#include <sys/inotify.h>
#include <sys/ioctl.h>

static int notify, number_of_directory, number_of_file, number_of_unlinked, number_of_fifo, number_of_shot, number_of_excluding,
    highest;
static int unlinked, fifo, mapped;
static char directory[600], file[640], shot[600], excluding[600], path[700], other[700];

static int watch(const char *where, uint32_t mask)
{
    int number = must(inotify_add_watch(notify, where, mask));
    check(number > highest, "watch %d after %d", number, highest);
    return highest = number;
}

/* The next event is this one; its cookie is returned. */
static uint32_t expect(int number, uint32_t mask, const char *name)
{
    static _Alignas(struct inotify_event) char block[4096];
    static size_t at, end;
    if (at == end) {
        end = must(read(notify, block, sizeof block));
        at = 0;
    }
    struct inotify_event *event = (struct inotify_event *)(block + at);
    at += sizeof *event + event->len;
    check(event->wd == number && event->mask == mask, "watch %d mask %#x (%s) instead of %d %#x (%s)", event->wd, event->mask,
          event->len ? event->name : "", number, mask, name);
    check(strcmp(event->len ? event->name : "", name) == 0, "%s instead of %s", event->name, name);
    check((event->cookie != 0) == ((mask & IN_MOVE) != 0));
    return event->cookie;
}

static void expect_nothing(void)
{
    int waiting = -1;
    must(ioctl(notify, FIONREAD, &waiting));
    check(waiting == 0, "%d bytes of events that nothing was done for", waiting);
    char block[512];
    check(read(notify, block, sizeof block) == -1 && errno == EAGAIN);
}

static void make(const char *where)
{
    close(must(open(where, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644)));
}

static void use(void)
{
    static int round;
    const char *moved = "a longer name, of several times sixteen bytes";
    char name[32];
    expect_nothing();
    snprintf(name, sizeof name, "new%d", ++round);
    snprintf(path, sizeof path, "%s/%s", directory, name);
    snprintf(other, sizeof other, "%s/%s", directory, moved);
    make(path);
    must(rename(path, other));
    must(unlink(other));
    must(mkdir(path, 0755));
    must(rmdir(path));
    expect(number_of_directory, IN_CREATE, name);
    uint32_t cookie = expect(number_of_directory, IN_MOVED_FROM, name);
    check(expect(number_of_directory, IN_MOVED_TO, moved) == cookie);
    expect(number_of_directory, IN_DELETE, moved);
    expect(number_of_directory, IN_CREATE | IN_ISDIR, name);
    expect(number_of_directory, IN_DELETE | IN_ISDIR, name);

    int fd = must(open(file, O_WRONLY | O_CLOEXEC));
    check(must(pwrite(fd, "x", 1, round % 100)) == 1);
    must(close(fd));
    expect(number_of_directory, IN_MODIFY, "file");
    expect(number_of_file, IN_MODIFY, "");

    check(must(pwrite(unlinked, "y", 1, round % 100)) == 1);
    expect(number_of_unlinked, IN_MODIFY, "");

    char byte = round;
    check(must(write(fifo, &byte, 1)) == 1);
    check(must(read(fifo, &byte, 1)) == 1 && byte == (char)round);
    expect(number_of_fifo, IN_MODIFY, "");
    expect(number_of_fifo, IN_ACCESS, "");
    expect_nothing();
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    snprintf(directory, sizeof directory, "%s", data_path("watched"));
    snprintf(file, sizeof file, "%s/file", directory);
    snprintf(shot, sizeof shot, "%s", data_path("shot"));
    snprintf(excluding, sizeof excluding, "%s", data_path("excluding"));
    must(mkdir(directory, 0755));
    must(mkdir(shot, 0755));
    must(mkdir(excluding, 0755));
    make(file);
    must(truncate(file, 4096));
    mapped = must(open(file, O_RDWR | O_CLOEXEC));
    check(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, mapped, 0) != MAP_FAILED);
    must(mkfifo(data_path("fifo"), 0600));
    fifo = must(open(data_path("fifo"), O_RDWR | O_CLOEXEC));
    unlinked = must(open(data_path("unlinked"), O_RDWR | O_CREAT | O_CLOEXEC, 0640));
    must(unlink(data_path("unlinked")));
    must(ftruncate(unlinked, 10000));

    notify = must(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    int first = watch(directory, IN_CREATE);
    must(inotify_rm_watch(notify, first));
    expect(first, IN_IGNORED, "");
    number_of_directory = watch(directory, IN_CREATE | IN_DELETE | IN_MOVE | IN_MODIFY | IN_ONLYDIR);
    number_of_file = watch(file, IN_MODIFY | IN_ATTRIB | IN_MOVE_SELF | IN_DELETE_SELF);
    int fired = watch(shot, IN_CREATE | IN_ONESHOT);
    snprintf(path, sizeof path, "%s/once", shot);
    make(path);
    must(unlink(path));
    expect(fired, IN_CREATE, "once");
    expect(fired, IN_IGNORED, "");
    number_of_shot = watch(shot, IN_CREATE | IN_ONESHOT);
    snprintf(path, sizeof path, "/proc/self/fd/%d", unlinked);
    number_of_unlinked = watch(path, IN_MODIFY | IN_ATTRIB);
    number_of_fifo = watch(data_path("fifo"), IN_ALL_EVENTS);
    number_of_excluding = watch(excluding, IN_MODIFY | IN_EXCL_UNLINK);
    int last = watch("/dev/null", IN_MOVE_SELF);
    must(inotify_rm_watch(notify, last));
    expect(last, IN_IGNORED, "");
    /* One without watches. */
    must(inotify_init());

    loop_until_finish(use());

    snprintf(path, sizeof path, "%s/gone", excluding);
    int fd = must(open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    check(must(write(fd, "a", 1)) == 1);
    expect(number_of_excluding, IN_MODIFY, "gone");
    must(unlink(path));
    check(must(write(fd, "b", 1)) == 1);
    must(close(fd));
    expect_nothing();
    snprintf(path, sizeof path, "%s/twice", shot);
    make(path);
    must(unlink(path));
    expect(number_of_shot, IN_CREATE, "twice");
    expect(number_of_shot, IN_IGNORED, "");
    /* What is watched already keeps its number. */
    check(must(inotify_add_watch(notify, directory, IN_DELETE)) == number_of_directory);
    snprintf(path, sizeof path, "%s/silent", directory);
    make(path);
    must(unlink(path));
    expect(number_of_directory, IN_DELETE, "silent");
    watch(shot, IN_CREATE);
    must(inotify_rm_watch(notify, number_of_file));
    expect(number_of_file, IN_IGNORED, "");
    must(close(unlinked));
    expect(number_of_unlinked, IN_IGNORED, "");
    expect_nothing();
    done();
}
