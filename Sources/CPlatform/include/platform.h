/* What Swift cannot ask the machine itself. */
#ifndef USAE_PLATFORM_H
#define USAE_PLATFORM_H
#include <stdint.h>

/* Instruction sets that this processor and operating system can run. */
enum { USAE_CPU_PORTABLE = 0, USAE_CPU_AVX2 = 1, USAE_CPU_AVX512 = 2, USAE_CPU_AVX512_VNNI = 3 };
int32_t usae_cpu_level(void);

/* Cores that this process may run on. */
int32_t usae_cpu_count(void);

/* Tells the processor that this thread waits in a loop. */
static inline void usae_cpu_relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}
#endif
