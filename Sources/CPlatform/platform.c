#define _GNU_SOURCE
#include "platform.h"

#include <sched.h>
#include <unistd.h>
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>

/* Tiles are eight kilobytes of state for each thread, so a process must ask Linux once before it uses them. */
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
#elif defined(__aarch64__) && defined(__linux__)
  const unsigned long products_of_bytes = 1ul << 20; /* HWCAP_ASIMDDP */
  if (getauxval(AT_HWCAP) & products_of_bytes) features |= USAE_CPU_DOTPROD;
#elif defined(__aarch64__) && defined(__APPLE__)
  int32_t has_products_of_bytes = 0;
  size_t size = sizeof has_products_of_bytes;
  if (sysctlbyname("hw.optional.arm.FEAT_DotProd", &has_products_of_bytes, &size, NULL, 0) == 0 && has_products_of_bytes != 0)
    features |= USAE_CPU_DOTPROD;
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
