/* The program of every benchmark container: exits at once, or with an argument sleeps until it
   is killed. No libc, so that a start measures the runtime and not a dynamic linker. */

static long call(long number, long argument) {
    long result;
#if defined(__x86_64__)
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(argument), "S"(0), "d"(0), "r"(0)
                     : "rcx", "r11", "memory");
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = argument, x1 __asm__("x1") = 0,
                  x2 __asm__("x2") = 0, x3 __asm__("x3") = 0;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    result = x0;
#else
#error "x86-64 and aarch64 only"
#endif
    return result;
}

#if defined(__x86_64__)
enum { PAUSE = 34, EXIT_GROUP = 231 };
__asm__(".globl _start\n_start: mov (%rsp), %rdi\n call begin");
#else
enum { PPOLL = 73, EXIT_GROUP = 94 };
__asm__(".globl _start\n_start: ldr x0, [sp]\n bl begin");
#endif

__attribute__((noreturn, used)) void begin(long argc) {
#if defined(__x86_64__)
    while (argc > 1) call(PAUSE, 0);
#else
    while (argc > 1) call(PPOLL, 0);
#endif
    for (;;) call(EXIT_GROUP, 0);
}
