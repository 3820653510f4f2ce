/* usae-fuzz-abi SEED CALLS [FROM]: makes so many calls at random, and prints how many had each status. FROM prints the calls
 * from that one on, to see what led to a failure. Ends with 1 if something did not hold. */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>

handle handles[MOST_HANDLES];

handle *any_handle(void) { return &handles[below(MOST_HANDLES)]; }

int32_t models_of(const usae_sae *sae, int64_t widths[MOST_MODELS]) {
  const int32_t count = usae_model_count(sae), asked = count > 0 && chance(98) ? count : (int32_t)between(1, MOST_MODELS);
  for (int32_t j = 0; j < MOST_MODELS; j++) {
    const int64_t width = usae_model_width(sae, j);
    widths[j] = width > 0 && width <= 64 ? width : between(1, 9);
  }
  return asked;
}

int32_t any_model(const usae_sae *sae) {
  const int32_t count = usae_model_count(sae);
  return count > 0 && chance(97) ? (int32_t)below(count) : (int32_t)limit();
}

static void one_call(void) {
  handle *const h = any_handle();
  if (h->sae == NULL && chance(80)) {
    fuzz_life(h);
    return;
  }
  const int64_t kind = below(100);
  if (h->is_begun && kind < 60) fuzz_shared(h);
  else if (kind < 5) fuzz_life(h);
  else if (kind < 30) fuzz_training(h);
  else if (kind < 50) fuzz_shared(h);
  else if (kind < 65) fuzz_use(h);
  else if (kind < 77) fuzz_tensors(h);
  else if (kind < 82) fuzz_objective(h);
  else if (kind < 94) fuzz_images();
  else if (kind < 97) fuzz_description(h);
  else if (kind < 99) fuzz_recipes();
  else fuzz_process();
}

int main(int count, char **arguments) {
  if (count < 3) {
    fprintf(stderr, "usage: %s SEED CALLS [FROM]\n", arguments[0]);
    return 2;
  }
  const uint64_t seed = strtoull(arguments[1], NULL, 10);
  const int64_t calls = strtoll(arguments[2], NULL, 10);
  if (count > 3) trace_from(strtoll(arguments[3], NULL, 10));
  seed_numbers(seed);
  watch_signals(seed);
  while (calls_made() < calls) one_call();
  for (int i = 0; i < MOST_HANDLES; i++) {
    shared_forget(&handles[i]);
    usae_destroy(handles[i].sae);
  }
  destroy_images();
  return print_counts() ? 0 : 1;
}
