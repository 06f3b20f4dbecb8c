/* Rows of queries, keys and values in the order and the precision in which attention reads them.
 *
 * In int8 every row has a scale of its own, and the keys stand without their mean, which would
 * move all scores of a query alike (Zhang et al., SageAttention, arXiv 2410.02367).
 */
#include "attention_kernel.h"

#include <math.h>
#include <string.h>

#ifdef HAS_KERNEL
#define LARGEST 127.0f /* of a signed byte */
/* Limit of what int8 may do to the scores of any row, root mean square: 5 % of a key's weight. */
#define LARGEST_NOISE 0.05

typedef union {
  int8_t bytes[LARGEST_HEAD];
  uint32_t fours[LARGEST_HEAD / 4];
} Row;

static const float no_mean[LARGEST_HEAD];

static const float *query_of(const Head *head, ptrdiff_t r) {
  return head->queries + r / head->group_size * head->query_stride +
         r % head->group_size * head->size;
}

static const float *key_of(const Head *head, ptrdiff_t row) {
  return head->keys + row * head->key_stride;
}

/* Which of the numbers from `d` on lie within a row. */
INLINE __mmask16 within(ptrdiff_t size, ptrdiff_t d) {
  return size - d >= LANES ? 0xffff : size > d ? (__mmask16)((1u << (size - d)) - 1) : 0;
}

/* 16 numbers of a row from `d` on, zeros past its end; zeros where there is no row. */
INLINE __m512 part_of(const float *row, ptrdiff_t size, ptrdiff_t d) {
  return row ? _mm512_maskz_loadu_ps(within(size, d), row + d) : _mm512_setzero_ps();
}

/* 16 numbers of a row less `mean`. */
INLINE __m512 centred(const float *row, const float *mean, ptrdiff_t size, ptrdiff_t d) {
  return _mm512_sub_ps(part_of(row, size, d), part_of(mean, size, d));
}

/* The int8 scale of a row. Its squares are added to `squares`. */
INLINE float scale_of(const float *row, const float *mean, ptrdiff_t size, __m512 *squares) {
  __m512 top = _mm512_setzero_ps();
  for (ptrdiff_t d = 0; d < size; d += LANES) {
    __m512 x = centred(row, mean, size, d);
    *squares = _mm512_fmadd_ps(x, x, *squares);
    top = _mm512_max_ps(top, _mm512_abs_ps(x));
  }
  return _mm512_reduce_max_ps(top) / LARGEST;
}

/* A row less `mean` in int8; returns its scale. */
INLINE float quantize(const float *row, const float *mean, ptrdiff_t size, int8_t *out) {
  __m512 unused = _mm512_setzero_ps();
  float scale = scale_of(row, mean, size, &unused), inverse = scale > 1e-30f ? 1 / scale : 0;
  for (ptrdiff_t d = 0; d < size; d += LANES) {
    __m512 x = _mm512_mul_ps(centred(row, mean, size, d), _mm512_set1_ps(inverse));
    _mm512_mask_cvtsepi32_storeu_epi8(out + d, within(size, d), _mm512_cvtps_epi32(x));
  }
  return scale;
}

/* By how much int8 would move the scores of the worst query and of the worst key, root mean square;
 * not a number where one of them is none. An error of rounding is spread evenly over a unit.
 * `mean` becomes that of the keys. */
KERNEL static double rounding_noise(const Head *head, float *mean) {
  double squares[2] = {0, 0}, scales[2] = {0, 0};
  ptrdiff_t counts[2] = {head->query_count, head->key_count};
  memset(mean, 0, sizeof(float) * (size_t)head->size);
  for (ptrdiff_t row = 0; row < head->key_count; row++)
    for (ptrdiff_t d = 0; d < head->size; d++) mean[d] += key_of(head, row)[d];
  for (ptrdiff_t d = 0; d < head->size; d++) mean[d] /= (float)head->key_count;
  for (int part = 0; part < 2; part++)
    for (ptrdiff_t row = 0; row < counts[part]; row++) {
      __m512 sum = _mm512_setzero_ps();
      float scale = part ? scale_of(key_of(head, row), mean, head->size, &sum)
                        : scale_of(query_of(head, row), no_mean, head->size, &sum);
      squares[part] += _mm512_reduce_add_ps(sum) / (double)counts[part];
      if (scale > scales[part]) scales[part] = scale;
    }
  double both = squares[0] * scales[1] * scales[1] + squares[1] * scales[0] * scales[0];
  return head->scale * sqrt(both / 12);
}

/* Keys in int8 to [rows / TILE] of [size / 4][TILE] fours along the head, [TILE] zero-point terms,
 * with which a sum begins, and [TILE] scales. Queries are 128 too large, for the product of unsigned by signed. */
KERNEL static void pack_int8_keys(const Head *head, const float *mean, uint32_t *out) {
  ptrdiff_t fours = padded(head->size) / 4;
  Row row = {{0}};
  for (ptrdiff_t r = 0; r < blocks(head->key_count) * BLOCK; r++) {
    uint32_t *to = out + r / TILE * (fours + 2) * TILE + r % TILE;
    float scale = 0;
    int32_t term = 0;
    if (r < head->key_count) scale = quantize(key_of(head, r), mean, head->size, row.bytes);
    for (ptrdiff_t d = 0; d < fours; d++) to[d * TILE] = row.fours[d];
    for (ptrdiff_t d = 0; d < head->size; d++) term -= 128 * row.bytes[d];
    memcpy(to + fours * TILE, &term, 4);
    memcpy(to + (fours + 1) * TILE, &scale, 4);
  }
}

/* Up to 16 words, `stride` apart. */
INLINE void spread(uint32_t *to, ptrdiff_t stride, ptrdiff_t count, __m512i words) {
  __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  __m512i places = _mm512_mullo_epi32(lanes, _mm512_set1_epi32((int)stride));
  _mm512_mask_i32scatter_epi32(to, within(count, 0), places, words, 4);
}

/* A row times `scale` to pairs along the head, `stride` words apart; zeros where there is none. */
INLINE void pack_pairs(const float *row, ptrdiff_t size, float scale, ptrdiff_t stride, uint32_t *to) {
  __m512 times = _mm512_set1_ps(scale);
  for (ptrdiff_t d = 0; d < padded(size); d += 2 * LANES) {
    __m512 low = _mm512_mul_ps(part_of(row, size, d), times);
    __m512 high = _mm512_mul_ps(part_of(row, size, d + LANES), times);
    spread(to + d / 2 * stride, stride, (padded(size) - d) / 2, bfloat16_of(low, high));
  }
}

/* Keys of a block to [BLOCK / TILE][size / 2][TILE], pairs along the head. */
INLINE void pack_keys(const Head *head, ptrdiff_t block, uint32_t *out) {
  for (ptrdiff_t r = block * BLOCK; r < (block + 1) * BLOCK; r++) {
    const float *key = r < head->key_count ? key_of(head, r) : NULL;
    uint32_t *tile = out + r / TILE * tile_words(head->size, 0);
    pack_pairs(key, head->size, 1, TILE, tile + r % TILE);
  }
}

/* Values of a block to [size / TILE][BLOCK / 2][TILE], pairs along the keys. */
INLINE void pack_values(const Head *head, ptrdiff_t block, uint32_t *out) {
  out += packed_words(block * BLOCK, head->size);
  for (ptrdiff_t p = 0; p < BLOCK / 2; p++) {
    const float *rows[2];
    for (ptrdiff_t i = 0; i < 2; i++) {
      ptrdiff_t row = block * BLOCK + 2 * p + i;
      rows[i] = row < head->key_count ? head->values + row * head->key_stride : NULL;
    }
    for (ptrdiff_t d = 0; d < padded(head->size); d += 2 * TILE) {
      __m512 even = part_of(rows[0], head->size, d), odd = part_of(rows[1], head->size, d);
      __m512i pairs = pairs_of(even, odd);
      uint32_t *to = out + (d / TILE * BLOCK / 2 + p) * TILE;
      _mm256_storeu_si256((__m256i *)to, _mm512_castsi512_si256(pairs));
      if (d + TILE < padded(head->size))
        _mm256_storeu_si256((__m256i *)(to + BLOCK / 2 * TILE), _mm512_extracti64x4_epi64(pairs, 1));
    }
  }
}

KERNEL void pack_blocks(const Head *head, ptrdiff_t first, ptrdiff_t last, uint32_t *keys,
                        uint32_t *values) {
  for (ptrdiff_t block = first; block < last; block++) {
    pack_keys(head, block, keys);
    pack_values(head, block, values);
  }
}

KERNEL int pack_head(const Head *head, uint32_t *keys, uint32_t *values) {
  float mean[LARGEST_HEAD];
  ptrdiff_t count = blocks(head->key_count);
  if (!(rounding_noise(head, mean) < LARGEST_NOISE)) {
    pack_blocks(head, 0, count, keys, values);
    return 0;
  }
  pack_int8_keys(head, mean, keys);
  for (ptrdiff_t block = 0; block < count; block++) pack_values(head, block, values);
  return 1;
}

KERNEL void pack_queries(const Head *head, int is_int8, ptrdiff_t first, ptrdiff_t count,
                         Queries *out) {
  float scale = LOG2_E * head->scale;
  Row row = {{0}};
  memset(out->scales, 0, sizeof out->scales);
  for (ptrdiff_t i = 0; i < QUERIES; i++) {
    const float *query = i < count ? query_of(head, first + i) : NULL;
    if (!is_int8) {
      pack_pairs(query, head->size, scale, QUERIES, out->words + i);
      continue;
    }
    if (query) out->scales[i] = scale * quantize(query, no_mean, head->size, row.bytes);
    for (ptrdiff_t d = 0; d < padded(head->size) / 4; d++)
      out->words[d * QUERIES + i] = row.fours[d] ^ 0x80808080; /* 128 more, unsigned */
  }
}
#else
int pack_head(const Head *head, uint32_t *keys, uint32_t *values) {
  return (void)head, (void)keys, (void)values, 0;
}
void pack_blocks(const Head *head, ptrdiff_t first, ptrdiff_t last, uint32_t *keys,
                 uint32_t *values) {
  (void)head, (void)first, (void)last, (void)keys, (void)values;
}
void pack_queries(const Head *head, int is_int8, ptrdiff_t first, ptrdiff_t count, Queries *out) {
  (void)head, (void)is_int8, (void)first, (void)count, (void)out;
}
#endif
