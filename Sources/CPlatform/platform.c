#define _GNU_SOURCE
#include "platform.h"

#include <sched.h>
#include <unistd.h>
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>

/* Tiles are eight kilobytes of state for each thread, so Linux wants to be asked, once for the process. */
int32_t usae_allow_tiles(void) {
  const long ask_for_state = 0x1023, tile_data = 18; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA */
  return syscall(SYS_arch_prctl, ask_for_state, tile_data) == 0;
}
#else
int32_t usae_allow_tiles(void) { return 0; }
#endif

int32_t usae_cpu_features(void) {
  int32_t features = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v3")) {
    features |= USAE_CPU_AVX2;
    if (__builtin_cpu_supports("avxvnni")) features |= USAE_CPU_AVX_VNNI;
  }
  if (__builtin_cpu_supports("x86-64-v4")) {
    features |= USAE_CPU_AVX512;
    if (__builtin_cpu_supports("avx512vnni")) {
      features |= USAE_CPU_AVX512_VNNI;
      if (__builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8")) features |= USAE_CPU_AMX;
    }
  }
#endif
  return features;
}

int32_t usae_cpu_count(void) {
#if defined(__linux__)
  cpu_set_t allowed; /* fewer than the machine has, in a container or under taskset */
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
#endif
  long online = sysconf(_SC_NPROCESSORS_ONLN);
  return online > 0 ? (int32_t)online : 1;
}
