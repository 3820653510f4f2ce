#include "check.h"

static usae_image_options image_options(void) {
  usae_image_options o = {.size = sizeof o};
  check(usae_image_defaults(&o, NULL) == USAE_OK, "default options");
  o.height = 20;
  o.width = 24;
  o.steps = 2;
  o.views = 3;
  o.first_crop = 0.5;
  o.last_crop = 0.25;
  o.seed = 3;
  return o;
}

void test_image_options(void) {
  usae_image_options o = image_options();
  usae_maximizer *made = NULL;
  usae_error error;
  static float start[3 * 20 * 24], magnitude[3 * 20 * 13];
  check(usae_maximizer_create(NULL, NULL, NULL, &made, &error) == USAE_INVALID_ARGUMENT, "NULL options are refused");
  check(usae_maximizer_create(&o, NULL, NULL, NULL, &error) == USAE_INVALID_ARGUMENT, "and no place for the maximizer");
  check(usae_image_defaults(NULL, &error) == USAE_INVALID_ARGUMENT, "NULL is refused");
  check(usae_image_defaults(&o, &error) == USAE_OK, "which are those that the header tells");
  check(o.parametrization == USAE_IMAGE_PHASE && o.optimizer == USAE_ASCENT_NADAM && o.decorrelate == 1, "choices");
  check(o.height == 512 && o.width == 512 && o.steps == 256 && o.views == 16 && o.seed == 0 && o.n_threads == 0, "counts");
  check(o.contrast == 1 && o.first_crop == 1 && o.last_crop == 0.5 && o.noise == 0.05, "and numbers");
  check(o.learning_rate == 0.3 && o.total_variation == 0 && o.l2 == 0, "of either kind");
  o = image_options();
#define REFUSED(field, value, sentence)                                                                             \
  o = image_options();                                                                                              \
  o.field = value;                                                                                                  \
  check(usae_maximizer_create(&o, NULL, NULL, &made, &error) == USAE_INVALID_ARGUMENT && made == NULL, sentence)
  REFUSED(parametrization, 3, "an unknown parametrization is refused");
  REFUSED(optimizer, -1, "an unknown optimizer");
  REFUSED(decorrelate, 2, "a switch that is neither off nor on");
  REFUSED(height, 0, "no rows");
  REFUSED(width, 8193, "a side above 8192");
  REFUSED(width, INT64_MIN, "a negative one");
  REFUSED(height, INT64_MAX, "an absurd one");
  REFUSED(steps, 0, "no steps");
  REFUSED(views, INT64_MAX, "absurdly many views");
  REFUSED(n_threads, -1, "negative threads");
  REFUSED(learning_rate, NAN, "a rate that is none");
  REFUSED(first_crop, 0, "crops of nothing");
  REFUSED(last_crop, 1.5, "crops past the canvas");
  REFUSED(noise, INFINITY, "infinite noise");
  REFUSED(contrast, -1, "negative contrast");
  REFUSED(l2, -1, "a negative weight");
#undef REFUSED
  o = image_options();
  start[7] = 1.5f;
  check(usae_maximizer_create(&o, NULL, start, &made, &error) == USAE_INVALID_ARGUMENT, "a start that is no image");
  check(strstr(error.message, "start") != NULL, "by name");
  magnitude[7] = -1;
  check(usae_maximizer_create(&o, magnitude, NULL, &made, &error) == USAE_INVALID_ARGUMENT, "and a negative magnitude");
  usae_maximizer_destroy(NULL);
  check(usae_maximizer_step_count(NULL) == -1, "a NULL maximizer has no steps");
}

static usae_view view_of(int64_t height, int64_t width) {
  usae_view view = {sizeof view, 0, height, width, {0.5, 0.5, 0.5}, {0.25, 0.25, 0.25}};
  return view;
}

void test_image_steps(void) {
  enum { HEIGHT = 20, WIDTH = 24, PIXELS = HEIGHT * WIDTH, VIEWS = 3, SIDE = 16, COUNT = VIEWS * 3 * SIDE * SIDE };
  usae_image_options o = image_options();
  usae_maximizer *maximizer = NULL;
  usae_error error;
  usae_view view = view_of(SIDE, SIDE);
  static float views[COUNT], again[COUNT], gradient[COUNT], image[3 * PIXELS], next[3 * PIXELS];
  static float attribution[PIXELS], colours[3 * PIXELS], planes[3 * PIXELS];
  int64_t boxes[VIEWS * 4];
  double norm = -1;
  check(usae_maximizer_create(&o, NULL, NULL, &maximizer, &error) == USAE_OK && maximizer != NULL, "a maximizer");
  check(usae_maximizer_step_count(maximizer) == 0, "has done no steps");
  check(usae_maximizer_image(maximizer, image, &error) == USAE_OK, "and has an image");
  check(usae_maximizer_boxes(maximizer, boxes, &error) == USAE_OK, "boxes");
  int inside = 1;
  for (int v = 0; v < VIEWS; v++) {
    const int64_t *b = boxes + 4 * v;
    if (b[0] < 0 || b[1] < 0 || b[2] != 10 || b[3] != 10 || b[0] + 10 > HEIGHT || b[1] + 10 > WIDTH) inside = 0;
  }
  check(inside, "are half as large as the canvas's shorter side, and inside");
  check(usae_maximizer_views(maximizer, &view, views, NULL, &error) == USAE_OK, "views");
  check(usae_maximizer_views(maximizer, &view, again, NULL, &error) == USAE_OK && !memcmp(views, again, sizeof views),
        "are the same when asked for again");
  for (int i = 0; i < COUNT; i++) gradient[i] = sinf((float)i);
  check(usae_maximizer_add_gradient(maximizer, &view, 1, gradient, &norm, NULL, &error) == USAE_OK && norm > 0, "a gradient");
  check(usae_maximizer_gradients(maximizer, colours, planes, &error) == USAE_OK, "is seen");
  double square = 0;
  for (int i = 0; i < 3 * PIXELS; i++) square += colours[i] * colours[i];
  check(fabs(sqrt(square) - 1) < 1e-5, "with length 1");
  check(usae_maximizer_advance(maximizer, NULL, &error) == USAE_OK && usae_maximizer_step_count(maximizer) == 1, "a step");
  check(usae_maximizer_image(maximizer, next, &error) == USAE_OK && memcmp(image, next, sizeof image), "changes the image");
  gradient[5] = NAN;
  norm = -1;
  check(usae_maximizer_add_gradient(maximizer, &view, 1, gradient, &norm, NULL, &error) == USAE_INVALID_ARGUMENT && norm == -1,
        "NaN is refused");
  gradient[5] = 0;

  int asked = 0;
  usae_interrupt interrupt = {stop_at_once, &asked};
  check(usae_maximizer_views(maximizer, &view, again, &interrupt, &error) == USAE_INTERRUPTED, "an interrupt stops views");
  check(usae_maximizer_add_gradient(maximizer, &view, 1, gradient, NULL, &interrupt, NULL) == USAE_INTERRUPTED, "gradients");
  check(usae_maximizer_add_gradient(maximizer, &view, 1, gradient, &norm, NULL, &error) == USAE_OK, "which are taken again");
  check(usae_maximizer_advance(maximizer, &interrupt, &error) == USAE_INTERRUPTED, "and a step");
  check(asked > 0 && usae_maximizer_step_count(maximizer) == 1, "that leaves the count");
  check(usae_maximizer_advance(maximizer, NULL, &error) == USAE_OK && usae_maximizer_step_count(maximizer) == 2, "a last step");
  check(usae_maximizer_attribution(maximizer, attribution, &error) == USAE_OK, "attribution");
  int positive = 1;
  for (int i = 0; i < PIXELS; i++) positive &= attribution[i] >= 0 && isfinite(attribution[i]);
  check(positive, "is not negative");
  check(usae_maximizer_advance(maximizer, NULL, &error) == USAE_INVALID_ARGUMENT, "one step too many");
  check(strstr(error.message, "steps") != NULL, "by name");

  check(usae_maximizer_views(NULL, &view, views, NULL, &error) == USAE_INVALID_ARGUMENT, "a NULL maximizer has no views");
  check(usae_maximizer_views(maximizer, NULL, views, NULL, &error) == USAE_INVALID_ARGUMENT, "NULL is no view");
  check(usae_maximizer_views(maximizer, &view, NULL, NULL, &error) == USAE_INVALID_ARGUMENT, "and no output is refused");
  check(usae_maximizer_add_gradient(NULL, &view, 1, gradient, &norm, NULL, &error) == USAE_INVALID_ARGUMENT, "nor gradients");
  check(usae_maximizer_add_gradient(maximizer, NULL, 1, gradient, &norm, NULL, NULL) == USAE_INVALID_ARGUMENT, "of no view");
  check(usae_maximizer_add_gradient(maximizer, &view, 1, NULL, &norm, NULL, NULL) == USAE_INVALID_ARGUMENT, "NULL is none");
  check(usae_maximizer_add_gradient(maximizer, &view, NAN, gradient, &norm, NULL, NULL) == USAE_INVALID_ARGUMENT, "or weight");
  check(usae_maximizer_advance(NULL, NULL, NULL) == USAE_INVALID_ARGUMENT, "NULL makes no step");
  check(usae_maximizer_image(NULL, image, NULL) == USAE_INVALID_ARGUMENT, "has no image");
  check(usae_maximizer_image(maximizer, NULL, NULL) == USAE_INVALID_ARGUMENT, "and NULL is refused");
  check(usae_maximizer_attribution(NULL, attribution, NULL) == USAE_INVALID_ARGUMENT, "no attribution");
  check(usae_maximizer_attribution(maximizer, NULL, NULL) == USAE_INVALID_ARGUMENT, "and NULL is refused for it");
  check(usae_maximizer_boxes(NULL, boxes, NULL) == USAE_INVALID_ARGUMENT, "no boxes");
  check(usae_maximizer_boxes(maximizer, NULL, NULL) == USAE_INVALID_ARGUMENT, "and NULL is refused for them");
  check(usae_maximizer_gradients(NULL, colours, planes, NULL) == USAE_INVALID_ARGUMENT, "no gradients");
  check(usae_maximizer_gradients(maximizer, colours, NULL, NULL) == USAE_INVALID_ARGUMENT, "and NULL is refused for them");
  const int64_t bad[] = {0, -1, 8193, INT64_MAX, INT64_MIN};
  for (int i = 0; i < 5; i++) {
    view = view_of(bad[i], SIDE);
    check(usae_maximizer_views(maximizer, &view, views, NULL, NULL) == USAE_INVALID_ARGUMENT, "an impossible height");
    view = view_of(SIDE, bad[i]);
    check(usae_maximizer_add_gradient(maximizer, &view, 1, gradient, NULL, NULL, NULL) == USAE_INVALID_ARGUMENT, "or width");
  }
  view = view_of(SIDE, SIDE);
  view.std[1] = 0;
  check(usae_maximizer_views(maximizer, &view, views, NULL, NULL) == USAE_INVALID_ARGUMENT, "a deviation of 0");
  view.std[1] = 1;
  view.mean[2] = NAN;
  check(usae_maximizer_views(maximizer, &view, views, NULL, NULL) == USAE_INVALID_ARGUMENT, "a mean that is none");
  usae_maximizer_destroy(maximizer);
}

void test_crops(void) {
  enum { HEIGHT = 8, WIDTH = 9, BOXES = 2, SIDE = 4 };
  usae_error error;
  usae_view view = view_of(SIDE, SIDE);
  static float image[3 * HEIGHT * WIDTH], out[BOXES * 3 * SIDE * SIDE];
  int64_t boxes[BOXES * 4] = {0, 0, 4, 4, 4, 5, 4, 4};
  for (int i = 0; i < 3 * HEIGHT * WIDTH; i++) image[i] = (float)i / 216;
  check(usae_crop_resize(HEIGHT, WIDTH, image, BOXES, boxes, &view, out, 1, &error) == USAE_OK, "crops");
  int same = 1;
  for (int b = 0; b < BOXES; b++)
    for (int c = 0; c < 3; c++)
      for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
          const float pixel = image[(c * HEIGHT + (int)boxes[4 * b] + y) * WIDTH + (int)boxes[4 * b + 1] + x];
          if (fabsf(out[((b * 3 + c) * SIDE + y) * SIDE + x] - (pixel - 0.5f) / 0.25f) > 1e-6f) same = 0;
        }
  check(same, "of the views' own size are the pixels, scaled");
  out[0] = 77;
  boxes[4] = 5;
  check(usae_crop_resize(HEIGHT, WIDTH, image, BOXES, boxes, &view, out, 1, &error) == USAE_INVALID_ARGUMENT && out[0] == 77,
        "a box past the image is refused, and nothing is written");
  check(strstr(error.message, "boxes") != NULL, "by name");
  boxes[4] = INT64_MAX;
  check(usae_crop_resize(HEIGHT, WIDTH, image, BOXES, boxes, &view, out, 1, NULL) == USAE_INVALID_ARGUMENT, "an absurd one");
  boxes[4] = 4;
  boxes[6] = 3;
  check(usae_crop_resize(HEIGHT, WIDTH, image, BOXES, boxes, &view, out, 1, NULL) == USAE_INVALID_ARGUMENT, "of two sizes");
  boxes[6] = 4;
  check(usae_crop_resize(HEIGHT, WIDTH, image, 0, boxes, &view, out, 1, NULL) == USAE_INVALID_ARGUMENT, "none");
  check(usae_crop_resize(HEIGHT, WIDTH, image, INT64_MAX, boxes, &view, out, 1, NULL) == USAE_INVALID_ARGUMENT, "too many");
  check(usae_crop_resize(0, WIDTH, image, 1, boxes, &view, out, 1, NULL) == USAE_INVALID_ARGUMENT, "an image without rows");
  check(usae_crop_resize(HEIGHT, 8193, image, 1, boxes, &view, out, 1, NULL) == USAE_INVALID_ARGUMENT, "one too wide");
  check(usae_crop_resize(HEIGHT, WIDTH, image, 1, boxes, &view, out, -1, NULL) == USAE_INVALID_ARGUMENT, "negative threads");
  check(usae_crop_resize(HEIGHT, WIDTH, NULL, 1, boxes, &view, out, 1, NULL) == USAE_INVALID_ARGUMENT, "no image");
  check(usae_crop_resize(HEIGHT, WIDTH, image, 1, NULL, &view, out, 1, NULL) == USAE_INVALID_ARGUMENT, "no boxes");
  check(usae_crop_resize(HEIGHT, WIDTH, image, 1, boxes, NULL, out, 1, NULL) == USAE_INVALID_ARGUMENT, "no view");
  check(usae_crop_resize(HEIGHT, WIDTH, image, 1, boxes, &view, NULL, 1, NULL) == USAE_INVALID_ARGUMENT, "and NULL is refused");
}
