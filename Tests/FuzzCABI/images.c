#include "fuzz.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- Images that are optimised ------------------------------------------------------------------------------------------- */

enum { MOST_MAXIMIZERS = 3 };

static struct {
  usae_maximizer *made;
  int64_t height, width, views;
} maximizers[MOST_MAXIMIZERS];

static usae_image_options any_options(void) {
  usae_image_options o;
  memset(&o, 0, sizeof o);
  o.size = sizeof o;
  require(CALL(usae_image_defaults, &o) == USAE_OK, "default options");
  o.n_threads = (int32_t)between(1, 2);
  o.parametrization = (int32_t)below(3);
  o.decorrelate = (int32_t)below(2);
  o.height = between(1, 40);
  o.width = between(1, 40);
  o.seed = bits();
  o.views = between(1, 4);
  o.steps = between(1, 12);
  o.optimizer = (int32_t)below(2);
  if (chance(30)) o.total_variation = real();
  if (chance(30)) o.l2 = real();
  double *const numbers[] = {&o.contrast, &o.first_crop, &o.last_crop, &o.noise, &o.learning_rate, &o.total_variation, &o.l2};
  if (chance(15)) *numbers[below(7)] = odd_number();
  if (chance(15)) *numbers[below(7)] = real();
  static const int64_t refused[] = {0, -1, 8193, INT64_MAX, INT64_MIN, 1ll << 62, 1ll << 31};
  int64_t *const sizes[] = {&o.height, &o.width, &o.views};
  if (chance(5)) *sizes[below(3)] = refused[below(7)];
  if (chance(3)) o.steps = limit();
  int32_t *const choices[] = {&o.parametrization, &o.decorrelate, &o.optimizer, &o.reserved};
  if (chance(3)) *choices[below(4)] = (int32_t)limit();
  if (chance(2)) o.size = (uint32_t)limit();
  if (o.size != sizeof o && o.size > 4) o.size = 4; /* a shorter struct would have a large canvas: tests in C have those */
  return o;
}

static void create(int at) {
  usae_image_options o = any_options();
  const bool is_valid = o.height > 0 && o.width > 0 && o.height <= 40 && o.width <= 40;
  const int64_t pixels = is_valid ? o.height * o.width : 1, bins = is_valid ? o.height * (o.width / 2 + 1) : 1;
  array start = array_make(3 * pixels, 4), magnitude = array_make(3 * bins, 4);
  for (int64_t i = 0; i < 3 * pixels; i++) ((float *)start.data)[i] = (float)real();
  for (int64_t i = 0; i < 3 * bins; i++) ((float *)magnitude.data)[i] = (float)real();
  if (chance(10)) ((float *)start.data)[below(3 * pixels)] = (float)odd_number();
  if (chance(10)) ((float *)magnitude.data)[below(3 * bins)] = (float)odd_number();
  usae_maximizer *made = NULL;
  const usae_status status = CALL(usae_maximizer_create, or_null(&o), chance(50) ? magnitude.data : NULL,
                                  chance(50) ? start.data : NULL, or_null(&made));
  require((status == USAE_OK) == (made != NULL), "a maximizer where there is no failure");
  if (made != NULL) {
    maximizers[at].made = made;
    maximizers[at].height = o.height;
    maximizers[at].width = o.width;
    maximizers[at].views = o.views;
  }
  array_free(&start);
  array_free(&magnitude);
}

static usae_view any_view(void) {
  usae_view view;
  memset(&view, 0, sizeof view);
  view.size = sizeof view;
  view.height = between(1, 24);
  view.width = between(1, 24);
  for (int c = 0; c < 3; c++) {
    view.mean[c] = chance(97) ? real() : odd_number();
    view.std[c] = chance(97) ? 0.1 + real() : odd_number();
  }
  static const int64_t refused[] = {0, -1, 8193, INT64_MAX, INT64_MIN, 1ll << 62};
  if (chance(3)) view.height = refused[below(6)];
  if (chance(3)) view.width = refused[below(6)];
  if (chance(2)) view.reserved = (uint32_t)limit();
  if (chance(2)) view.size = (uint32_t)limit() & 71u;
  return view;
}

static int64_t pixels_of(const usae_view *view) {
  return view->height > 0 && view->width > 0 && view->height <= 24 && view->width <= 24 ? view->height * view->width : 0;
}

static void views(int at) {
  usae_view view = any_view();
  array out = array_make(maximizers[at].views * 3 * pixels_of(&view), 4);
  const usae_status status =
      CALL(usae_maximizer_views, maximizers[at].made, or_null(&view), or_null(out.data), interrupt(false));
  if (status != USAE_OK && status != USAE_INTERRUPTED) require(is_unchanged(&out), "no views after a failure");
  array_free(&out);
}

static void add_gradient(int at) {
  usae_view view = any_view();
  const int64_t count = maximizers[at].views * 3 * pixels_of(&view);
  array gradient = array_make(count, 4);
  double norm = -7;
  for (int64_t i = 0; i < count; i++) ((float *)gradient.data)[i] = (float)(2 * real() - 1);
  if (chance(10) && count > 0) ((float *)gradient.data)[below(count)] = (float)odd_number();
  const usae_status status = CALL(usae_maximizer_add_gradient, maximizers[at].made, or_null(&view),
                                  chance(95) ? 2 * real() - 1 : odd_number(), or_null(gradient.data), chance(80) ? &norm : NULL,
                                  interrupt(false));
  if (status != USAE_OK) require(norm == -7, "no norm after a failure");
  array_free(&gradient);
}

static void read_image(int at) {
  const int64_t pixels = maximizers[at].height * maximizers[at].width, views = maximizers[at].views;
  array image = array_make(3 * pixels, 4), attribution = array_make(pixels, 4), boxes = array_make(4 * views, 8);
  usae_maximizer *const maximizer = maximizers[at].made;
  if (CALL(usae_maximizer_image, maximizer, or_null(image.data)) == USAE_OK) {
    for (int64_t i = 0; i < 3 * pixels; i++) {
      const float colour = ((float *)image.data)[i];
      require(colour >= 0 && colour <= 1, "colours are from 0 to 1");
    }
  } else {
    require(is_unchanged(&image), "no image after a failure");
  }
  if (CALL(usae_maximizer_attribution, maximizer, or_null(attribution.data)) != USAE_OK)
    require(is_unchanged(&attribution), "no attribution after a failure");
  if (CALL(usae_maximizer_boxes, maximizer, or_null(boxes.data)) != USAE_OK)
    require(is_unchanged(&boxes), "no boxes after a failure");
  require((usae_maximizer_step_count(maximizer) >= 0) == (maximizer != NULL), "steps");
  NOTE(usae_maximizer_step_count);
  array_free(&image);
  array_free(&attribution);
  array_free(&boxes);
}

static void destroy(int at) {
  usae_maximizer_destroy(maximizers[at].made);
  memset(&maximizers[at], 0, sizeof maximizers[at]);
}

void destroy_images(void) {
  for (int at = 0; at < MOST_MAXIMIZERS; at++) destroy(at);
}

/* --- Crops --------------------------------------------------------------------------------------------------------------- */

static void crop(void) {
  const int64_t height = between(1, 30), width = between(1, 30), n = between(1, 5);
  const int64_t box_height = between(1, height), box_width = between(1, width);
  usae_view view = any_view();
  array image = array_make(3 * height * width, 4), boxes = array_make(4 * n, 8), out = array_make(n * 3 * pixels_of(&view), 4);
  int64_t *const numbers = boxes.data;
  for (int64_t i = 0; i < n; i++) {
    numbers[4 * i] = below(height - box_height + 1);
    numbers[4 * i + 1] = below(width - box_width + 1);
    numbers[4 * i + 2] = box_height;
    numbers[4 * i + 3] = box_width;
  }
  if (chance(8)) numbers[below(4 * n)] = limit();
  static const int64_t refused[] = {0, -1, 8193, INT64_MAX, INT64_MIN, 1ll << 62};
  const int64_t told_height = chance(97) ? height : refused[below(6)], told_width = chance(97) ? width : refused[below(6)];
  const int64_t told_n = chance(97) ? n : chance(50) ? -below(4) : (1 << 20) + 1 + (limit() & INT64_MAX) / 2;
  const int32_t threads = (int32_t)(chance(95) ? between(1, 2) : -1 - below(9));
  if (CALL(usae_crop_resize, told_height, told_width, or_null(image.data), told_n, or_null(numbers), or_null(&view),
           or_null(out.data), threads) != USAE_OK)
    require(is_unchanged(&out), "no crops after a failure");
  array_free(&image);
  array_free(&boxes);
  array_free(&out);
}

void fuzz_images(void) {
  const int at = (int)below(MOST_MAXIMIZERS);
  if (chance(15)) {
    crop();
  } else if (maximizers[at].made == NULL && chance(90)) {
    create(at);
  } else if (chance(8)) {
    destroy(at);
    NOTE(usae_maximizer_destroy);
  } else {
    switch (below(4)) {
    case 0: views(at); break;
    case 1: add_gradient(at); break;
    case 2: CALL(usae_maximizer_advance, maximizers[at].made, interrupt(false)); break;
    default: read_image(at);
    }
  }
}
