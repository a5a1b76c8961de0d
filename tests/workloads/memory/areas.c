/* As many areas as a process may have by default: pages of alternating protections, so that none can be merged, each with its
 * own content.
 */
#include "../workload.h"

enum { AREAS = 50000 };

int main(int argc, char **argv)
{
    begin(argc, argv);
    unsigned char *at = mmap(NULL, AREAS * 4096ul, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(at != MAP_FAILED);
    for (size_t i = 0; i < AREAS; i += 10)
        *(uint64_t *)(at + i * 4096) = i * 0x9e3779b97f4a7c15u + 1;
    for (size_t i = 0; i < AREAS; i += 2)
        must(mprotect(at + i * 4096, 4096, PROT_READ));
    loop_until_finish({
        for (size_t i = 0; i < AREAS; i += 10)
            check(*(uint64_t *)(at + i * 4096) == i * 0x9e3779b97f4a7c15u + 1);
    });
    must(mprotect(at, AREAS * 4096ul, PROT_READ | PROT_WRITE));
    done();
}
