/* The attention kernel: many queries of a head, over keys and values in float32. */
#include <math.h>
#include <stdlib.h>

#include "check.h"

enum { NO_MASK, CAUSAL, WINDOW };

typedef struct {
  ptrdiff_t rows, key_count, group_size, size;
  int kind;
} Case;

static const Case cases[] = {{1, 1, 1, 8, NO_MASK},
                             {50, 131, 1, 72, NO_MASK},
                             {9, 300, 3, 40, CAUSAL},
                             {33, 290, 2, 256, WINDOW}};

/* out[rows][group_size][size] */
static void attend(const Head *head, double *out) {
  double *weights = allocated(head->key_count, sizeof *weights);
  for (ptrdiff_t r = 0; r < head->query_count; r++) {
    ptrdiff_t row = r / head->group_size, offset = r % head->group_size * head->size;
    const float *query = head->queries + row * head->query_stride + offset;
    double best = -INFINITY, total = 0;
    for (ptrdiff_t k = 0; k < head->key_count; k++) {
      double sum = 0;
      for (ptrdiff_t d = 0; d < head->size; d++)
        sum += (double)query[d] * head->keys[k * head->key_stride + d];
      weights[k] = sum * head->scale + (head->mask ? head->mask[row * head->mask_stride + k] : 0);
      best = fmax(best, weights[k]);
    }
    for (ptrdiff_t k = 0; k < head->key_count; k++)
      total += weights[k] = exp(weights[k] - best);
    for (ptrdiff_t d = 0; d < head->size; d++) {
      double sum = 0;
      for (ptrdiff_t k = 0; k < head->key_count; k++)
        sum += weights[k] * head->values[k * head->key_stride + d];
      out[row * head->out_stride + offset + d] = sum / total;
    }
  }
  free(weights);
}

static void draw_mask(const Case *of, float *mask) {
  for (ptrdiff_t r = 0; r < of->rows; r++)
    for (ptrdiff_t k = 0; k < of->key_count; k++) {
      ptrdiff_t after = k - (of->key_count - of->rows + r);
      int is_seen = after <= 0 && (of->kind == CAUSAL || after > -40);
      mask[r * of->key_count + k] = is_seen ? 0 : -1e30f;
    }
}

/* With scores of bytes, where these suffice for numbers up to `largest_input`. */
static double check_case(const AttentionKernel *kernel, const Case *of, double largest_input,
                         int is_bytes) {
  ptrdiff_t width = of->group_size * of->size, queries = of->rows * width;
  ptrdiff_t kv = of->key_count * of->size, blocks = attention_blocks(of->key_count);
  float *x = allocated(queries, sizeof *x), *y = allocated(queries, sizeof *y);
  float *keys = allocated(kv, sizeof *keys), *values = allocated(kv, sizeof *values);
  float *mask = allocated(of->rows * of->key_count, sizeof *mask);
  double *expected = allocated(queries, sizeof *expected);
  draw_floats(x, queries, -largest_input, largest_input);
  draw_floats(keys, kv, -largest_input, largest_input);
  draw_floats(values, kv, -1, 1);
  draw_mask(of, mask);
  Head head = {.queries = x, .keys = keys, .values = values, .out = y, .query_stride = width,
               .key_stride = of->size, .out_stride = width,
               .query_count = of->rows * of->group_size, .key_count = of->key_count,
               .group_size = of->group_size, .size = of->size,
               .scale = 1 / sqrtf((float)of->size), .is_bytes = is_bytes,
               .mask = of->kind == NO_MASK ? NULL : mask, .mask_stride = of->key_count};
  attend(&head, expected);
  ptrdiff_t words = packed_words(of->key_count, of->size);
  uint32_t *packed_keys = allocated(words, sizeof(uint32_t));
  uint32_t *packed_values = allocated(words, sizeof(uint32_t));
  uint8_t *visibility = allocated(blocks, 1);
  kernel->pack_blocks(&head, 0, blocks, packed_keys, packed_values);
  for (ptrdiff_t first = 0; first < head.query_count; first += kernel->queries) {
    ptrdiff_t left = head.query_count - first, count = left < kernel->queries ? left : kernel->queries;
    if (head.mask) kernel->block_visibility(&head, first, count, visibility);
    kernel->attend(&head, packed_keys, packed_values, head.mask ? visibility : NULL, first, count);
  }
  double largest = difference(y, expected, queries);
  if (is_bytes && !kernel->bytes_suffice(&head)) largest = INFINITY;
  if (is_bytes) x[0] = 300 * 300;
  if (is_bytes && kernel->bytes_suffice(&head)) largest = INFINITY;
  void *all[] = {x, y, keys, values, mask, expected, packed_keys, packed_values, visibility};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  return largest;
}

double check_attention(const AttentionKernel *kernel) {
  double largest = 0;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    largest = fmax(largest, check_case(kernel, cases + i, 3, 0));
  return largest;
}

double check_attention_bytes(const AttentionKernel *kernel) {
  double largest = 0;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    if (cases[i].kind == NO_MASK && kernel->bytes_suffice)
      largest = fmax(largest, check_case(kernel, cases + i, 1, 1));
  return largest;
}
