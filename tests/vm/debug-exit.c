/* Ends a virtual machine: qemu's isa-debug-exit makes its exit status (N << 1) | 1. */
#include <stdlib.h>
#include <sys/io.h>

int main(int count, char **arguments)
{
    if (count != 2 || iopl(3) != 0)
        return 1;
    outb((unsigned char)(atoi(arguments[1]) & 127), 0x501);
    return 1;
}
