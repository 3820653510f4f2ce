#include <stdint.h>

/* Writes a name, which ends with 0, and sixteen hexadecimal characters. */
void trace_line(const uint8_t *name, uint64_t hash);
