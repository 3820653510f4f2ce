/* Questions to the machine that Swift has no call for. */
#ifndef USAE_PLATFORM_H
#define USAE_PLATFORM_H
#include "fork.h"

#include <stdint.h>

/* What this processor and operating system can run, a bit each. The features are not nested: some processors have AVX-VNNI
 * without AVX-512, others the reverse. */
enum {
  USAE_CPU_AVX2 = 1,        /* x86-64-v3 */
  USAE_CPU_AVX_VNNI = 2,    /* and products of bytes in its registers */
  USAE_CPU_AVX512 = 4,      /* x86-64-v4 */
  USAE_CPU_AVX512_VNNI = 8, /* and products of bytes in its registers */
  USAE_CPU_AMX = 16,        /* and in tiles, which the operating system has to allow */
  USAE_CPU_DOTPROD = 32     /* arm64 with products of bytes */
};
int32_t usae_cpu_features(void);

/* Asks the operating system to let this process use tiles; 1 if it does. */
int32_t usae_allow_tiles(void);

/* Cores that this process may use: those that it may run on, or fewer if its control groups have a quota of time. */
int32_t usae_cpu_count(void);

/* The quota as a number of cores, rounded up; 0 if there is none. `membership` is the content of /proc/self/cgroup, `mount` the
 * folder where control groups are, in version 2 (cpu.max) or 1 (cpu/cpu.cfs_quota_us). A group's quota holds for all below. */
int32_t usae_cpu_quota(const char *membership, const char *mount);

/* Tells the processor that this thread waits in a loop. */
static inline void usae_cpu_relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}
#endif
