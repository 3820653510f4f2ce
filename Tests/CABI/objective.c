#include "check.h"

void test_objective(usae_sae *sae) {
  enum { VIEWS = 10 };
  usae_error error;
  usae_matrix x = matrix(left, TOKENS, LEFT);
  static float pre[TOKENS * CONCEPTS], gradient[TOKENS * LEFT];
  double values[VIEWS];
  const int concept = 3;
  usae_preactivations(sae, 0, &x, pre, NULL, &error);
#define STATUS(model, concept, kind, power, token, views, x) \
  usae_objective(sae, model, concept, kind, power, token, views, x, values, gradient, NULL, &error)
  check(STATUS(0, concept, USAE_OBJECTIVE_PREACTIVATION, 0, -1, VIEWS, &x) == USAE_OK, "an objective");
  int means = 1;
  for (int v = 0; v < VIEWS; v++) {
    double sum = 0;
    for (int t = 0; t < TOKENS / VIEWS; t++) sum += pre[(v * (TOKENS / VIEWS) + t) * CONCEPTS + concept];
    if (fabs(values[v] - sum / (TOKENS / VIEWS)) > 1e-4) means = 0;
  }
  check(means, "is the mean of pre-activations");
  check(STATUS(0, concept, USAE_OBJECTIVE_ALIGNMENT, 2, 4, VIEWS, &x) == USAE_OK, "of one token");
  int alone = 1;
  for (int i = 0; i < TOKENS * LEFT; i++)
    if ((gradient[i] != 0) && i / LEFT % (TOKENS / VIEWS) != 4) alone = 0;
  check(alone, "no other has a gradient");
  check(STATUS(0, concept, USAE_OBJECTIVE_CODE, 0, -1, VIEWS, &x) == USAE_OK, "codes");
  check(STATUS(0, concept, USAE_OBJECTIVE_LOG_SUM_EXP, 0, -1, VIEWS, &x) == USAE_OK, "and soft maxima are known");
  check(STATUS(0, concept, 4, 0, -1, VIEWS, &x) == USAE_INVALID_ARGUMENT, "others are refused");
  check(STATUS(7, concept, 1, 0, -1, VIEWS, &x) == USAE_UNKNOWN_MODEL, "so is a model that is not there");
  check(STATUS(-1, concept, 1, 0, -1, VIEWS, &x) == USAE_UNKNOWN_MODEL, "or has a negative number");
  check(STATUS(1, concept, 1, 0, -1, VIEWS, &x) == USAE_SHAPE_MISMATCH, "activations of another width");
  check(STATUS(0, CONCEPTS, 1, 0, -1, VIEWS, &x) == USAE_INVALID_ARGUMENT, "a concept past the last");
  check(STATUS(0, INT64_MIN, 1, 0, -1, VIEWS, &x) == USAE_INVALID_ARGUMENT, "a negative one");
  check(STATUS(0, concept, 0, NAN, -1, VIEWS, &x) == USAE_INVALID_ARGUMENT, "a power that is none");
  check(STATUS(0, concept, 0, 101, -1, VIEWS, &x) == USAE_INVALID_ARGUMENT, "a huge one");
  check(STATUS(0, concept, 1, 0, TOKENS / VIEWS, VIEWS, &x) == USAE_INVALID_ARGUMENT, "a token past the last");
  check(STATUS(0, concept, 1, 0, INT64_MAX, VIEWS, &x) == USAE_INVALID_ARGUMENT, "an absurd one");
  check(STATUS(0, concept, 1, 0, -1, 0, &x) == USAE_INVALID_ARGUMENT, "no views");
  check(STATUS(0, concept, 1, 0, -1, INT64_MAX, &x) == USAE_INVALID_ARGUMENT, "too many");
  check(STATUS(0, concept, 1, 0, -1, 7, &x) == USAE_SHAPE_MISMATCH, "views that tokens cannot be divided among");
  check(STATUS(0, concept, 1, 0, -1, VIEWS, NULL) == USAE_INVALID_ARGUMENT, "and no activations");
#undef STATUS
  check(usae_objective(NULL, 0, 0, 1, 0, -1, VIEWS, &x, values, gradient, NULL, NULL) == USAE_INVALID_ARGUMENT, "NULL");
  check(usae_objective(sae, 0, 0, 1, 0, -1, VIEWS, &x, NULL, gradient, NULL, NULL) == USAE_INVALID_ARGUMENT, "NULL is refused");
  check(usae_objective(sae, 0, 0, 1, 0, -1, VIEWS, &x, values, NULL, NULL, NULL) == USAE_INVALID_ARGUMENT, "or the gradient");
}
