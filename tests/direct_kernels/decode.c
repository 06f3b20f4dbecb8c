/* The decode kernel: one row of attention over caches in int8 or float32. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { NOTHING, WINDOW, HOLES };

typedef struct {
  ptrdiff_t kv_heads, group_size, size, key_count;
  int hidden;
} Case;

static const Case cases[] = {{1, 1, 16, 1, NOTHING},    {2, 1, 64, 7, NOTHING},
                             {1, 2, 256, 37, HOLES},    {2, 3, 48, 513, NOTHING},
                             {1, 5, 16, 1100, WINDOW}};

static double clipped(double x) { return x < -128 ? -128 : x > 127 ? 127 : x; }

/* Number `d` of a row of a head that begins at `row` of a cache. */
static double stored(const void *cache, const float *scales, ptrdiff_t row, ptrdiff_t d) {
  if (!scales) return ((const float *)cache)[row + d];
  return ((const int8_t *)cache)[row + d] * (double)scales[d];
}

static const float *scales_of(const DecodeStep *a, const float *scales, ptrdiff_t head) {
  return scales ? scales + head * a->size : NULL;
}

/* out[heads][size]; keys and values are the caches with the new row in them. */
static void attend(const DecodeStep *a, const void *keys, const void *values, double *out) {
  for (ptrdiff_t q = 0; q < a->kv_heads * a->group_size; q++) {
    ptrdiff_t head = q / a->group_size, row = head * a->capacity * a->size;
    const float *key_scales = scales_of(a, a->key_scales, head);
    const float *value_scales = scales_of(a, a->value_scales, head);
    double *scores = allocated(a->key_count, sizeof *scores), best = -INFINITY, total = 0;
    for (ptrdiff_t k = 0; k < a->key_count; k++) {
      double sum = 0;
      for (ptrdiff_t d = 0; d < a->size; d++)
        sum += a->query[q * a->size + d] * stored(keys, key_scales, row + k * a->size, d);
      scores[k] = sum * a->scale + a->mask[k];
      best = fmax(best, scores[k]);
    }
    for (ptrdiff_t k = 0; k < a->key_count; k++) total += scores[k] = exp(scores[k] - best);
    for (ptrdiff_t d = 0; d < a->size; d++) {
      double sum = 0;
      for (ptrdiff_t k = 0; k < a->key_count; k++)
        sum += scores[k] * stored(values, value_scales, row + k * a->size, d);
      out[q * a->size + d] = sum / total;
    }
    free(scores);
  }
}

static void store_new(const DecodeStep *a, const float *new, const float *scales, void *cache) {
  for (ptrdiff_t h = 0; h < a->kv_heads; h++)
    for (ptrdiff_t d = 0; d < a->size; d++) {
      ptrdiff_t from = h * a->size + d, to = (h * a->capacity + a->key_count - 1) * a->size + d;
      if (scales) ((int8_t *)cache)[to] = (int8_t)rint(clipped(new[from] / scales[from]));
      else ((float *)cache)[to] = new[from];
    }
}

static void *drawn_cache(ptrdiff_t count, int is_int8) {
  void *cache = allocated(count, is_int8 ? 1 : sizeof(float));
  if (is_int8) draw_bytes(cache, count, -128, 127);
  else draw_floats(cache, count, -2, 2);
  return cache;
}

static void *copy_of(const void *from, ptrdiff_t bytes) {
  return memcpy(allocated(bytes, 1), from, (size_t)bytes);
}

static double check_case(const DecodeKernel *kernel, const Case *of, int is_int8) {
  ptrdiff_t kv_row = of->kv_heads * of->size, row = kv_row * of->group_size;
  ptrdiff_t capacity = of->key_count + 1, cache = kv_row * capacity;
  ptrdiff_t bytes = cache * (is_int8 ? 1 : (ptrdiff_t)sizeof(float));
  float *query = allocated(row, sizeof *query), *out = allocated(row, sizeof *out);
  float *kv = allocated(4 * kv_row, sizeof *kv), *mask = allocated(of->key_count, sizeof *mask);
  void *keys = drawn_cache(cache, is_int8), *values = drawn_cache(cache, is_int8);
  draw_floats(query, row, -2, 2);
  draw_floats(kv, 2 * kv_row, -2, 2);
  draw_floats(kv + 2 * kv_row, 2 * kv_row, 0.01, 0.02);
  for (ptrdiff_t k = 0; k < of->key_count; k++)
    mask[k] = (of->hidden == WINDOW && k < 530) || (of->hidden == HOLES && k % 3) ? -1e30f : 0;
  DecodeStep step = {.query = query, .new_key = kv, .new_value = kv + kv_row,
                     .keys = keys, .values = values,
                     .key_scales = is_int8 ? kv + 2 * kv_row : NULL,
                     .value_scales = is_int8 ? kv + 3 * kv_row : NULL,
                     .mask = mask, .out = out, .kv_heads = of->kv_heads,
                     .group_size = of->group_size, .size = of->size, .capacity = capacity,
                     .key_count = of->key_count, .scale = 1 / sqrtf((float)of->size)};
  void *own_keys = copy_of(keys, bytes), *own_values = copy_of(values, bytes);
  store_new(&step, step.new_key, step.key_scales, own_keys);
  store_new(&step, step.new_value, step.value_scales, own_values);
  double *expected = allocated(row, sizeof *expected);
  attend(&step, own_keys, own_values, expected);

  ptrdiff_t tasks = of->kv_heads * decode_spans(&step), parts = tasks * of->group_size;
  step.queries = allocated(row, sizeof(float));
  step.sums = allocated(parts * of->size, sizeof(float));
  step.highest = allocated(parts, sizeof(float));
  step.totals = allocated(parts, sizeof(float));
  kernel->begin(&step);
  for (ptrdiff_t task = 0; task < tasks; task++) kernel->attend(&step, (size_t)task);
  kernel->end(&step);
  double largest = difference(out, expected, row);
  if (memcmp(keys, own_keys, (size_t)bytes) || memcmp(values, own_values, (size_t)bytes))
    largest = INFINITY;
  void *all[] = {query, out,        kv,       mask,         keys,      values,       own_keys,
                 own_values, expected, step.queries, step.sums, step.highest, step.totals};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  return largest;
}

double check_decode(const DecodeKernel *kernel) {
  double largest = 0;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (int is_int8 = 0; is_int8 < 2; is_int8++)
      largest = fmax(largest, check_case(kernel, cases + i, is_int8));
  return largest;
}
