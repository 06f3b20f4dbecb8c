/* The decode kernel: one row of attention over caches in int8. */
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

/* out[heads][size]; keys and values are the caches with the new row in them. */
static void attend(const DecodeStep *a, const int8_t *keys, const int8_t *values, double *out) {
  for (ptrdiff_t q = 0; q < a->kv_heads * a->group_size; q++) {
    ptrdiff_t head = q / a->group_size, row = head * a->capacity * a->size;
    const float *query = a->query + q * a->size, *scales = a->key_scales + head * a->size;
    double *scores = allocated(a->key_count, sizeof *scores), best = -INFINITY, total = 0;
    for (ptrdiff_t k = 0; k < a->key_count; k++) {
      double sum = 0;
      for (ptrdiff_t d = 0; d < a->size; d++)
        sum += (double)query[d] * keys[row + k * a->size + d] * scales[d];
      scores[k] = sum * a->scale + a->mask[k];
      best = fmax(best, scores[k]);
    }
    for (ptrdiff_t k = 0; k < a->key_count; k++) total += scores[k] = exp(scores[k] - best);
    for (ptrdiff_t d = 0; d < a->size; d++) {
      double sum = 0;
      for (ptrdiff_t k = 0; k < a->key_count; k++) sum += scores[k] * values[row + k * a->size + d];
      out[q * a->size + d] = sum * a->value_scales[head * a->size + d] / total;
    }
    free(scores);
  }
}

static void store_new(const DecodeStep *a, const float *row, const float *scales, int8_t *cache) {
  for (ptrdiff_t h = 0; h < a->kv_heads; h++)
    for (ptrdiff_t d = 0; d < a->size; d++)
      cache[(h * a->capacity + a->key_count - 1) * a->size + d] =
          (int8_t)rint(clipped(row[h * a->size + d] / scales[h * a->size + d]));
}

static int8_t *copy_of(const int8_t *from, ptrdiff_t count) {
  return memcpy(allocated(count, 1), from, (size_t)count);
}

static double check_case(const DecodeKernel *kernel, const Case *of) {
  ptrdiff_t kv_row = of->kv_heads * of->size, row = kv_row * of->group_size;
  ptrdiff_t capacity = of->key_count + 1, cache = kv_row * capacity;
  float *query = allocated(row, sizeof *query), *out = allocated(row, sizeof *out);
  float *kv = allocated(4 * kv_row, sizeof *kv), *mask = allocated(of->key_count, sizeof *mask);
  int8_t *keys = allocated(cache, 1), *values = allocated(cache, 1);
  draw_floats(query, row, -2, 2);
  draw_floats(kv, 2 * kv_row, -2, 2);
  draw_floats(kv + 2 * kv_row, 2 * kv_row, 0.01, 0.02);
  draw_bytes(keys, cache, -128, 127);
  draw_bytes(values, cache, -128, 127);
  for (ptrdiff_t k = 0; k < of->key_count; k++)
    mask[k] = (of->hidden == WINDOW && k < 530) || (of->hidden == HOLES && k % 3) ? -1e30f : 0;
  DecodeStep step = {.query = query, .new_key = kv, .new_value = kv + kv_row,
                     .keys = keys, .values = values,
                     .key_scales = kv + 2 * kv_row, .value_scales = kv + 3 * kv_row,
                     .mask = mask, .out = out, .kv_heads = of->kv_heads,
                     .group_size = of->group_size, .size = of->size, .capacity = capacity,
                     .key_count = of->key_count, .scale = 1 / sqrtf((float)of->size)};
  int8_t *own_keys = copy_of(keys, cache), *own_values = copy_of(values, cache);
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
  if (memcmp(keys, own_keys, (size_t)cache) || memcmp(values, own_values, (size_t)cache))
    largest = INFINITY;
  void *all[] = {query, out,        kv,       mask,         keys,      values,       own_keys,
                 own_values, expected, step.queries, step.sums, step.highest, step.totals};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  return largest;
}

double check_decode(const DecodeKernel *kernel) {
  double largest = 0;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    largest = fmax(largest, check_case(kernel, cases + i));
  return largest;
}
