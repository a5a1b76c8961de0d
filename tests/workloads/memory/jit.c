/* Generated code: a page of machine code that is called all the time, and is rewritten after the checkpoint. */
#include "../workload.h"

typedef int function(int);

static void generate(unsigned char *at, int number)
{
    /* lea number(%rdi),%eax; ret */
    unsigned char code[] = { 0x8d, 0x87, number, number >> 8, number >> 16, number >> 24, 0xc3 };
    memcpy(at, code, sizeof code);
}

int main(int argc, char **argv)
{
    begin(argc, argv);
    unsigned char *code = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned char *sealed = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(code != MAP_FAILED && sealed != MAP_FAILED);
    for (int i = 0; i < 1000; i++)
        generate(code + i * 16, i);
    generate(sealed, 77);
    must(mprotect(sealed, 4096, PROT_READ | PROT_EXEC));
    int turn = 0;
    loop_until_finish({
        turn++;
        for (int i = 0; i < 1000; i++)
            check(((function *)(code + i * 16))(turn) == turn + i);
        check(((function *)sealed)(turn) == turn + 77);
    });
    for (int i = 0; i < 1000; i++)
        generate(code + i * 16, 2 * i);
    for (int i = 0; i < 1000; i++)
        check(((function *)(code + i * 16))(turn) == turn + 2 * i);
    done();
}
