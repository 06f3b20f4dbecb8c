/* Softmax attention of many queries: scores in 8-bit products where a head allows it, else in bfloat16
 * like the values, all with sums of 32 bits (AVX512_BF16, AVX512_VNNI).
 *
 * Scores never leave the first-level cache: QUERIES rows of a head take BLOCK keys at a time, with a
 * running maximum and sum (Dao et al., FlashAttention, arXiv 2205.14135). Scores are computed
 * transposed, keys down and queries across the vector: maximum, sum and scaling are then per lane,
 * and no head size pads a vector.
 */
#include "attention_kernel.h"

#include <math.h>
#include <string.h>

#ifdef HAS_KERNEL
#include <cpuid.h>

#ifndef __clang__
#pragma GCC optimize("no-tree-pre") /* it moves sums between registers: 4 % of the time */
#endif

#define EACH_VECTOR(v) for (int v = 0; v < VECTORS; v++)
#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)

typedef __m512 Rows[TILE][VECTORS];
typedef __m512 Lanes[VECTORS];

/* What a mask adds to one key's scores, for the queries of `attend`. */
typedef struct {
  const float *first; /* of the first query and key */
  __m512i rows[VECTORS]; /* where the others' rows begin */
} Mask;

/* Asked by every call: reads what the compiler's library has kept, not the processor. */
int attention_has_instructions(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}

int has_amx_bf16(void) {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1);
}

/* sums[i] += a[pair][i] * b[pair] over the pairs: two bfloat16 products in each. */
INLINE void multiply(const uint32_t *a, const uint32_t *b, ptrdiff_t pairs, Rows sums) {
  for (ptrdiff_t pair = 0; pair < pairs; pair++) {
    __m512bh across[VECTORS];
    EACH_VECTOR(v) across[v] = (__m512bh)_mm512_load_si512(b + pair * QUERIES + v * LANES);
#define ADD(i)                                                             \
  {                                                                        \
    __m512bh one = (__m512bh)_mm512_set1_epi32((int)a[pair * TILE + i]);   \
    EACH_VECTOR(v) sums[i][v] = _mm512_dpbf16_ps(sums[i][v], one, across[v]); \
  }
    EACH_ROW(ADD)
  }
}

/* sums[i] = products of TILE keys, as `pack_int8_keys` left them, and of queries in int8. */
INLINE void multiply_int8(const uint32_t *a, const uint32_t *b, ptrdiff_t fours,
                           const Lanes scales, Rows sums) {
  const uint32_t *terms = a + fours * TILE, *key_scales = terms + TILE;
  __m512i whole[TILE][VECTORS];
#define BEGIN(i) EACH_VECTOR(v) whole[i][v] = _mm512_set1_epi32((int)terms[i]);
  EACH_ROW(BEGIN)
  for (ptrdiff_t d = 0; d < fours; d++) {
    __m512i across[VECTORS];
    EACH_VECTOR(v) across[v] = _mm512_load_si512(b + d * QUERIES + v * LANES);
#define ADD_INT8(i)                                                          \
  {                                                                           \
    __m512i one = _mm512_set1_epi32((int)a[d * TILE + i]);                    \
    EACH_VECTOR(v) whole[i][v] = _mm512_dpbusd_epi32(whole[i][v], across[v], one); \
  }
    EACH_ROW(ADD_INT8)
  }
#define SCALE(i)                                                                   \
  {                                                                                \
    __m512 unit = _mm512_castsi512_ps(_mm512_set1_epi32((int)key_scales[i]));            \
    EACH_VECTOR(v) sums[i][v] =                                                    \
        _mm512_mul_ps(_mm512_cvtepi32_ps(whole[i][v]), _mm512_mul_ps(unit, scales[v])); \
  }
  EACH_ROW(SCALE)
}

/* 2 to the power of x <= 0, to 1e-4 of it: a tenth of what bfloat16 rounds away. */
INLINE __m512 power_of_two(__m512 x) {
  __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 rest = _mm512_sub_ps(x, whole);
  __m512 sum = _mm512_set1_ps(0.05550327f);
  sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(0.24226275f));
  sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(0.6931472f));
  sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(0.99992996f));
  return _mm512_scalef_ps(sum, whole);
}

/* What is added to scores of LANES queries and a key, as a power of two. */
INLINE __m512 masked(const Mask *mask, ptrdiff_t key, int v) {
  __m512 added = _mm512_i32gather_ps(mask->rows[v], mask->first + key, 4);
  return _mm512_mul_ps(added, _mm512_set1_ps(LOG2_E));
}

/* Scores [BLOCK][QUERIES] of one block; `highest` takes in their maximum. `mask` begins with the
 * block's first key; NULL where all see all. */
INLINE void score(const uint32_t *keys, const uint32_t *queries, const Lanes scales, ptrdiff_t valid,
                  ptrdiff_t size, int is_int8, const Mask *mask, float *scores, Lanes highest) {
  for (ptrdiff_t t = 0; t < BLOCK / TILE; t++) {
    const uint32_t *tile = keys + t * tile_words(size, is_int8);
    Rows sums;
    if (is_int8) multiply_int8(tile, queries, size / 4, scales, sums);
    else {
#define ZERO(i) EACH_VECTOR(v) sums[i][v] = _mm512_setzero_ps();
      EACH_ROW(ZERO)
      multiply(tile, queries, size / 2, sums);
    }
    if (mask) {
#define ADD_MASK(i)              \
  if (t * TILE + i < valid)      \
    EACH_VECTOR(v) sums[i][v] = _mm512_add_ps(sums[i][v], masked(mask, t * TILE + i, v));
      EACH_ROW(ADD_MASK)
    }
    if ((t + 1) * TILE > valid) { /* what pads the last block has no weight */
#define HIDE(i)               \
  if (t * TILE + i >= valid) \
    EACH_VECTOR(v) sums[i][v] = _mm512_set1_ps(-INFINITY);
      EACH_ROW(HIDE)
    }
#define KEEP(i)                                              \
  EACH_VECTOR(v) {                                           \
    highest[v] = _mm512_max_ps(highest[v], sums[i][v]);      \
    _mm512_store_ps(scores + (t * TILE + i) * QUERIES + v * LANES, sums[i][v]); \
  }
    EACH_ROW(KEEP)
  }
}

/* Weights [BLOCK / 2][QUERIES], pairs along the keys, of scores; `total` takes in their sum. */
INLINE void softmax(const float *scores, const Lanes highest, uint32_t *weights, Lanes total) {
  for (ptrdiff_t p = 0; p < BLOCK / 2; p++) EACH_VECTOR(v) {
      const float *even = scores + 2 * p * QUERIES + v * LANES, *odd = even + QUERIES;
      __m512 a = power_of_two(_mm512_sub_ps(_mm512_load_ps(even), highest[v]));
      __m512 b = power_of_two(_mm512_sub_ps(_mm512_load_ps(odd), highest[v]));
      total[v] = _mm512_add_ps(total[v], _mm512_add_ps(a, b));
      _mm512_store_si512(weights + p * QUERIES + v * LANES, pairs_of(a, b));
    }
}

/* out [size][QUERIES] = out * shrink + values * weights. */
INLINE void weighted_sum(const uint32_t *values, const uint32_t *weights, ptrdiff_t size,
                   const Lanes shrink, float *out) {
  for (ptrdiff_t t = 0; t < size / TILE; t++) {
    float *tile = out + t * TILE * QUERIES;
    Rows sums;
#define LOAD(i)    \
  EACH_VECTOR(v) sums[i][v] = \
      _mm512_mul_ps(shrink[v], _mm512_load_ps(tile + i * QUERIES + v * LANES));
    EACH_ROW(LOAD)
    multiply(values + t * BLOCK / 2 * TILE, weights, BLOCK / 2, sums);
#define STORE(i) EACH_VECTOR(v) _mm512_store_ps(tile + i * QUERIES + v * LANES, sums[i][v]);
    EACH_ROW(STORE)
  }
}

/* The mask of queries from `first` on; those past the last take the last one's. */
INLINE Mask mask_of(const Head *head, ptrdiff_t first, ptrdiff_t count) {
  int32_t rows[QUERIES];
  ptrdiff_t begin = first / head->group_size;
  for (ptrdiff_t i = 0; i < QUERIES; i++) {
    ptrdiff_t row = (first + (i < count ? i : count - 1)) / head->group_size - begin;
    rows[i] = (int32_t)(row * head->mask_stride);
  }
  Mask mask = {.first = head->mask + begin * head->mask_stride};
  EACH_VECTOR(v) mask.rows[v] = _mm512_loadu_si512(rows + v * LANES);
  return mask;
}

KERNEL void block_visibility(const Head *head, ptrdiff_t first, ptrdiff_t count,
                             uint8_t *visibility) {
  for (ptrdiff_t b = 0; b < blocks(head->key_count); b++) {
    ptrdiff_t rest = head->key_count - b * BLOCK, keys = rest < BLOCK ? rest : BLOCK;
    ptrdiff_t row = first / head->group_size, end = (first + count - 1) / head->group_size + 1;
    int32_t seen = 0, hidden = 0, all = (int32_t)((end - row) * keys);
    for (; row < end; row++) {
      const float *mask = head->mask + row * head->mask_stride + b * BLOCK;
      for (ptrdiff_t key = 0; key < keys; key++) {
        seen += mask[key] == 0;
        hidden += mask[key] <= HIDDEN;
      }
    }
    visibility[b] = seen == all ? SEES_ALL : hidden == all ? SEES_NOTHING : SEES_SOME;
  }
}

INLINE void attend(const Head *head, const uint32_t *keys, const uint32_t *values, int is_int8,
                   const uint8_t *visibility, ptrdiff_t first, ptrdiff_t count) {
  _Alignas(64) uint32_t weights[BLOCK / 2 * QUERIES];
  _Alignas(64) float scores[BLOCK * QUERIES], sums[LARGEST_HEAD * QUERIES], inverse[QUERIES];
  Queries queries;
  Mask mask = {NULL};
  ptrdiff_t size = padded(head->size);
  pack_queries(head, is_int8, first, count, &queries);
  if (visibility) mask = mask_of(head, first, count);
  Lanes highest, total, scales;
  EACH_VECTOR(v) {
    scales[v] = _mm512_load_ps(queries.scales + v * LANES);
    highest[v] = _mm512_set1_ps(-INFINITY);
    total[v] = _mm512_setzero_ps();
  }
  memset(sums, 0, sizeof(float) * (size_t)(size * QUERIES));
  for (ptrdiff_t b = 0; b < blocks(head->key_count); b++, mask.first += BLOCK) {
    if (visibility && visibility[b] == SEES_NOTHING) continue;
    const uint32_t *block = keys + b * BLOCK / TILE * tile_words(size, is_int8);
    Lanes before, shrink;
    EACH_VECTOR(v) before[v] = highest[v];
    score(block, queries.words, scales, head->key_count - b * BLOCK, size, is_int8,
          visibility && visibility[b] == SEES_SOME ? &mask : NULL, scores, highest);
    EACH_VECTOR(v) {
      shrink[v] = power_of_two(_mm512_sub_ps(before[v], highest[v]));
      total[v] = _mm512_mul_ps(total[v], shrink[v]);
    }
    softmax(scores, highest, weights, total);
    weighted_sum(values + packed_words(b * BLOCK, size), weights, size, shrink, sums);
  }
  EACH_VECTOR(v) _mm512_store_ps(inverse + v * LANES, _mm512_div_ps(_mm512_set1_ps(1), total[v]));
  for (ptrdiff_t i = 0; i < count; i++) {
    ptrdiff_t r = first + i;
    float *to = head->out + r / head->group_size * head->out_stride +
                r % head->group_size * head->size;
    for (ptrdiff_t d = 0; d < head->size; d++) to[d] = sums[d * QUERIES + i] * inverse[i];
  }
}

/* Three copies, each without the others' products and masks. */
KERNEL void attend_rows(const Head *head, const uint32_t *keys, const uint32_t *values, int is_int8,
                        const uint8_t *visibility, ptrdiff_t first, ptrdiff_t count) {
  if (visibility) attend(head, keys, values, 0, visibility, first, count);
  else if (is_int8) attend(head, keys, values, 1, NULL, first, count);
  else attend(head, keys, values, 0, NULL, first, count);
}
#else
int attention_has_instructions(void) { return 0; }
int has_amx_bf16(void) { return 0; }
void block_visibility(const Head *head, ptrdiff_t first, ptrdiff_t count, uint8_t *visibility) {
  (void)head, (void)first, (void)count, (void)visibility;
}
void attend_rows(const Head *head, const uint32_t *keys, const uint32_t *values, int is_int8,
                 const uint8_t *visibility, ptrdiff_t first, ptrdiff_t count) {
  (void)head, (void)keys, (void)values, (void)is_int8, (void)visibility, (void)first, (void)count;
}
#endif
