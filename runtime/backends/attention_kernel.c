/* Softmax attention over all rows: scores in 8-bit products where a head allows it, else in bfloat16
 * like the values, all with sums of 32 bits (AVX512_BF16, AVX512_VNNI).
 *
 * Scores never leave the first-level cache: QUERIES rows of a head meet BLOCK keys at a time, with a
 * running maximum and sum (Dao et al., FlashAttention, arXiv 2205.14135). Scores are computed
 * transposed, keys down and queries across the vector: maximum, sum and scaling are then per lane,
 * and no head size pads a vector.
 *
 * In 8 bits every row has a step of its own, and the keys stand without their mean, which would
 * move all scores of a query alike (Zhang et al., SageAttention, arXiv 2410.02367).
 */
#include "attention_kernel.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <immintrin.h>

#define KERNEL \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni")))
#define LARGEST 127.0f /* of a signed byte */
/* Limit of what bytes may do to the scores of any row, root mean square: 5 % of a key's weight. */
#define LARGEST_NOISE 0.05
#define INLINE KERNEL static inline __attribute__((always_inline))
#define EACH_VECTOR(v) for (int v = 0; v < VECTORS; v++)
#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)

typedef __m512 Rows[TILE][VECTORS];
typedef __m512 Lanes[VECTORS];

/* [size / 2 or size / 4][QUERIES], and what a unit of each is worth in bytes. */
typedef struct {
  _Alignas(64) uint32_t words[LARGEST_HEAD / 2 * QUERIES];
  Lanes steps;
} Queries;

/* Asked by every call: looks into what the compiler's library has kept, not at the processor. */
int has_instructions(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}

int has_amx_bf16(void) {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1);
}

/* Row `row` of part 0 (query), 1 (key) or 2 (value) of the joined rows; NULL beyond the last. */
static const float *row_of(const float *joined, Shape s, int part, ptrdiff_t row) {
  ptrdiff_t width = s.heads * s.size;
  return row < s.rows ? joined + (row * 3 + part) * width + s.head * s.size : NULL;
}

typedef union {
  uint16_t numbers[LARGEST_HEAD];
  uint32_t pairs[LARGEST_HEAD / 2];
  int8_t bytes[LARGEST_HEAD];
  uint32_t fours[LARGEST_HEAD / 4];
} Row;

/* A row in bfloat16, to nearest even, times `scale`; zeros where there is none and behind its end. */
KERNEL static void to_bfloat16(const float *row, ptrdiff_t size, float scale, uint16_t *out) {
  for (ptrdiff_t d = row ? size : 0; d < padded(size); d++) out[d] = 0;
  if (!row) return;
  for (ptrdiff_t d = 0; d < size; d++) {
    float x = row[d] * scale;
    uint32_t bits;
    memcpy(&bits, &x, 4);
    out[d] = x == x ? (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16) : 0x7fc0;
  }
}

/* Which of the numbers from `d` on lie within a row. */
INLINE __mmask16 within(ptrdiff_t size, ptrdiff_t d) {
  return size - d < LANES ? (__mmask16)((1u << (size - d)) - 1) : 0xffff;
}

/* 16 numbers of a row less `mean`. */
INLINE __m512 centred(const float *row, const float *mean, ptrdiff_t size, ptrdiff_t d) {
  __mmask16 mask = within(size, d);
  return _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, row + d), _mm512_maskz_loadu_ps(mask, mean + d));
}

/* The step of a row in bytes: what a unit is worth. Its squares are added to `squares`. */
INLINE float step_of(const float *row, const float *mean, ptrdiff_t size, __m512 *squares) {
  __m512 top = _mm512_setzero_ps();
  for (ptrdiff_t d = 0; d < size; d += LANES) {
    __m512 x = centred(row, mean, size, d);
    *squares = _mm512_fmadd_ps(x, x, *squares);
    top = _mm512_max_ps(top, _mm512_abs_ps(x));
  }
  return _mm512_reduce_max_ps(top) / LARGEST;
}

/* A row less `mean` in bytes; returns its step. */
INLINE float to_bytes(const float *row, const float *mean, ptrdiff_t size, int8_t *out) {
  __m512 unused = _mm512_setzero_ps();
  float step = step_of(row, mean, size, &unused), inverse = step > 1e-30f ? 1 / step : 0;
  for (ptrdiff_t d = 0; d < size; d += LANES) {
    __m512 x = _mm512_mul_ps(centred(row, mean, size, d), _mm512_set1_ps(inverse));
    _mm512_mask_cvtsepi32_storeu_epi8(out + d, within(size, d), _mm512_cvtps_epi32(x));
  }
  return step;
}

static const float no_mean[LARGEST_HEAD];

/* By how much bytes would move the scores of the worst query and of the worst key, root mean square;
 * not a number where one of them is none. An error of rounding is spread evenly over a step.
 * `mean` becomes that of the keys. */
KERNEL static double rounding_noise(const float *joined, Shape s, float *mean) {
  double squares[2] = {0, 0}, steps[2] = {0, 0};
  memset(mean, 0, sizeof(float) * (size_t)s.size);
  for (ptrdiff_t row = 0; row < s.rows; row++) {
    const float *key = row_of(joined, s, 1, row);
    for (ptrdiff_t d = 0; d < s.size; d++) mean[d] += key[d];
  }
  for (ptrdiff_t d = 0; d < s.size; d++) mean[d] /= (float)s.rows;
  for (int part = 0; part < 2; part++)
    for (ptrdiff_t row = 0; row < s.rows; row++) {
      __m512 sum = _mm512_setzero_ps();
      float step = step_of(row_of(joined, s, part, row), part ? mean : no_mean, s.size, &sum);
      squares[part] += _mm512_reduce_add_ps(sum);
      if (step > steps[part]) steps[part] = step;
    }
  double both = squares[0] * steps[1] * steps[1] + squares[1] * steps[0] * steps[0];
  return sqrt(both / 12 / (double)s.size / (double)s.rows);
}

/* Keys in bytes to [rows / TILE] of [size / 4][TILE] fours along the head, [TILE] times what a sum
 * begins with and [TILE] steps. Queries are 128 too large, for the product of unsigned by signed. */
KERNEL static void pack_byte_keys(const float *joined, Shape s, const float *mean, uint32_t *out) {
  ptrdiff_t fours = padded(s.size) / 4;
  Row row = {{0}};
  for (ptrdiff_t r = 0; r < blocks(s.rows) * BLOCK; r++) {
    uint32_t *to = out + r / TILE * (fours + 2) * TILE + r % TILE;
    const float *key = row_of(joined, s, 1, r);
    float step = 0;
    int32_t begin = 0;
    if (key) step = to_bytes(key, mean, s.size, row.bytes);
    for (ptrdiff_t d = 0; d < fours; d++) to[d * TILE] = row.fours[d];
    for (ptrdiff_t d = 0; d < s.size; d++) begin -= 128 * row.bytes[d];
    memcpy(to + fours * TILE, &begin, 4);
    memcpy(to + (fours + 1) * TILE, &step, 4);
  }
}

/* Keys to [rows / TILE][size / 2][TILE], pairs along the head. */
KERNEL static void pack_keys(const float *joined, Shape s, uint32_t *out) {
  ptrdiff_t tiles = blocks(s.rows) * BLOCK / TILE, steps = padded(s.size) / 2;
  Row row;
  for (ptrdiff_t t = 0; t < tiles; t++)
    for (ptrdiff_t i = 0; i < TILE; i++) {
      to_bfloat16(row_of(joined, s, 1, t * TILE + i), s.size, 1, row.numbers);
      for (ptrdiff_t d = 0; d < steps; d++) out[(t * steps + d) * TILE + i] = row.pairs[d];
    }
}

/* Values to [blocks][size / TILE][BLOCK / 2][TILE], pairs along the keys. */
KERNEL static void pack_values(const float *joined, Shape s, uint32_t *out) {
  ptrdiff_t tiles = padded(s.size) / TILE, pairs = BLOCK / 2;
  uint16_t even[LARGEST_HEAD], odd[LARGEST_HEAD];
  for (ptrdiff_t p = 0; p < blocks(s.rows) * pairs; p++) {
    uint32_t *block = out + p / pairs * tiles * pairs * TILE + p % pairs * TILE;
    to_bfloat16(row_of(joined, s, 2, 2 * p), s.size, 1, even);
    to_bfloat16(row_of(joined, s, 2, 2 * p + 1), s.size, 1, odd);
    for (ptrdiff_t t = 0; t < tiles; t++)
      for (ptrdiff_t i = 0; i < TILE; i++)
        block[t * pairs * TILE + i] = even[t * TILE + i] | (uint32_t)odd[t * TILE + i] << 16;
  }
}

int pack_head(const float *joined, Shape s, uint32_t *keys, uint32_t *values) {
  float mean[LARGEST_HEAD];
  int in_bytes = rounding_noise(joined, s, mean) < LARGEST_NOISE;
  if (in_bytes) pack_byte_keys(joined, s, mean, keys);
  else pack_keys(joined, s, keys);
  pack_values(joined, s, values);
  return in_bytes;
}

/* sums[i] += a[step][i] * b[step] over the steps, two bfloat16 products in each. */
INLINE void multiply(const uint32_t *a, const uint32_t *b, ptrdiff_t steps, Rows sums) {
  for (ptrdiff_t step = 0; step < steps; step++) {
    __m512bh across[VECTORS];
    EACH_VECTOR(v) across[v] = (__m512bh)_mm512_load_si512(b + step * QUERIES + v * LANES);
#define ADD(i)                                                             \
  {                                                                        \
    __m512bh one = (__m512bh)_mm512_set1_epi32((int)a[step * TILE + i]);   \
    EACH_VECTOR(v) sums[i][v] = _mm512_dpbf16_ps(sums[i][v], one, across[v]); \
  }
    EACH_ROW(ADD)
  }
}

/* sums[i] = products of TILE keys, as `pack_byte_keys` left them, and of queries in bytes. */
INLINE void multiply_bytes(const uint32_t *a, const uint32_t *b, ptrdiff_t fours,
                           const Lanes steps, Rows sums) {
  const uint32_t *begin = a + fours * TILE, *step = begin + TILE;
  __m512i whole[TILE][VECTORS];
#define BEGIN(i) EACH_VECTOR(v) whole[i][v] = _mm512_set1_epi32((int)begin[i]);
  EACH_ROW(BEGIN)
  for (ptrdiff_t d = 0; d < fours; d++) {
    __m512i across[VECTORS];
    EACH_VECTOR(v) across[v] = _mm512_load_si512(b + d * QUERIES + v * LANES);
#define ADD_BYTES(i)                                                          \
  {                                                                           \
    __m512i one = _mm512_set1_epi32((int)a[d * TILE + i]);                    \
    EACH_VECTOR(v) whole[i][v] = _mm512_dpbusd_epi32(whole[i][v], across[v], one); \
  }
    EACH_ROW(ADD_BYTES)
  }
#define SCALE(i)                                                                   \
  {                                                                                \
    __m512 unit = _mm512_castsi512_ps(_mm512_set1_epi32((int)step[i]));            \
    EACH_VECTOR(v) sums[i][v] =                                                    \
        _mm512_mul_ps(_mm512_cvtepi32_ps(whole[i][v]), _mm512_mul_ps(unit, steps[v])); \
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

/* Keys of TILE rows as they were packed, in numbers of 32 bits. */
INLINE ptrdiff_t tile_words(ptrdiff_t size, int in_bytes) {
  return TILE * (in_bytes ? size / 4 + 2 : size / 2);
}

/* Scores [BLOCK][QUERIES] of one block; `highest` takes in their maximum. */
INLINE void score(const uint32_t *keys, const Queries *queries, ptrdiff_t valid, ptrdiff_t size,
                  int in_bytes, float *scores, Lanes highest) {
  for (ptrdiff_t t = 0; t < BLOCK / TILE; t++) {
    const uint32_t *tile = keys + t * tile_words(size, in_bytes);
    Rows sums;
    if (in_bytes) multiply_bytes(tile, queries->words, size / 4, queries->steps, sums);
    else {
#define ZERO(i) EACH_VECTOR(v) sums[i][v] = _mm512_setzero_ps();
      EACH_ROW(ZERO)
      multiply(tile, queries->words, size / 2, sums);
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
INLINE void weigh(const float *scores, const Lanes highest, uint32_t *weights, Lanes total) {
  static const uint16_t in_pairs[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  __m512i order = _mm512_loadu_si512(in_pairs);
  for (ptrdiff_t p = 0; p < BLOCK / 2; p++) EACH_VECTOR(v) {
      const float *even = scores + 2 * p * QUERIES + v * LANES, *odd = even + QUERIES;
      __m512 a = power_of_two(_mm512_sub_ps(_mm512_load_ps(even), highest[v]));
      __m512 b = power_of_two(_mm512_sub_ps(_mm512_load_ps(odd), highest[v]));
      total[v] = _mm512_add_ps(total[v], _mm512_add_ps(a, b));
      __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(b, a);
      _mm512_store_si512(weights + p * QUERIES + v * LANES,
                         _mm512_permutexvar_epi16(order, halves));
    }
}

/* out [size][QUERIES] = out * shrink + values * weights. */
INLINE void gather(const uint32_t *values, const uint32_t *weights, ptrdiff_t size,
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

/* Queries as `score` reads them, so that scores come out as powers of two; zeros behind the last. */
KERNEL static void pack_queries(const float *joined, Shape s, int in_bytes, ptrdiff_t first,
                                ptrdiff_t count, Queries *out) {
  float scale = 1.4426950408889634f / sqrtf((float)s.size), steps[QUERIES] = {0};
  Row row = {{0}};
  for (ptrdiff_t i = 0; i < QUERIES; i++) {
    const float *query = i < count ? row_of(joined, s, 0, first + i) : NULL;
    if (!in_bytes) {
      to_bfloat16(query, s.size, scale, row.numbers);
      for (ptrdiff_t d = 0; d < padded(s.size) / 2; d++) out->words[d * QUERIES + i] = row.pairs[d];
      continue;
    }
    if (query) steps[i] = scale * to_bytes(query, no_mean, s.size, row.bytes);
    for (ptrdiff_t d = 0; d < padded(s.size) / 4; d++)
      out->words[d * QUERIES + i] = row.fours[d] ^ 0x80808080; /* 128 more, unsigned */
  }
  EACH_VECTOR(v) out->steps[v] = _mm512_loadu_ps(steps + v * LANES);
}

INLINE void attend(const float *joined, Shape s, const uint32_t *keys, const uint32_t *values,
                   int in_bytes, ptrdiff_t first, ptrdiff_t count, float *out) {
  _Alignas(64) uint32_t weights[BLOCK / 2 * QUERIES];
  _Alignas(64) float scores[BLOCK * QUERIES], sums[LARGEST_HEAD * QUERIES], inverse[QUERIES];
  Queries queries;
  ptrdiff_t size = padded(s.size);
  pack_queries(joined, s, in_bytes, first, count, &queries);
  Lanes highest, total;
  EACH_VECTOR(v) {
    highest[v] = _mm512_set1_ps(-INFINITY);
    total[v] = _mm512_setzero_ps();
  }
  memset(sums, 0, sizeof(float) * (size_t)(size * QUERIES));
  for (ptrdiff_t b = 0; b < blocks(s.rows); b++) {
    const uint32_t *block = keys + b * BLOCK / TILE * tile_words(size, in_bytes);
    Lanes before, shrink;
    EACH_VECTOR(v) before[v] = highest[v];
    score(block, &queries, s.rows - b * BLOCK, size, in_bytes, scores, highest);
    EACH_VECTOR(v) {
      shrink[v] = power_of_two(_mm512_sub_ps(before[v], highest[v]));
      total[v] = _mm512_mul_ps(total[v], shrink[v]);
    }
    weigh(scores, highest, weights, total);
    gather(values + b * BLOCK / 2 * size, weights, size, shrink, sums);
  }
  EACH_VECTOR(v) _mm512_store_ps(inverse + v * LANES, _mm512_div_ps(_mm512_set1_ps(1), total[v]));
  for (ptrdiff_t i = 0; i < count; i++) {
    float *to = out + (first + i) * s.heads * s.size + s.head * s.size;
    for (ptrdiff_t d = 0; d < s.size; d++) to[d] = sums[d * QUERIES + i] * inverse[i];
  }
}

/* Two copies, each without the other's products. */
KERNEL void attend_rows(const float *joined, Shape s, const uint32_t *keys, const uint32_t *values,
                        int in_bytes, ptrdiff_t first, ptrdiff_t count, float *out) {
  if (in_bytes) attend(joined, s, keys, values, 1, first, count, out);
  else attend(joined, s, keys, values, 0, first, count, out);
}
#else
int has_instructions(void) { return 0; }
int has_amx_bf16(void) { return 0; }
int pack_head(const float *joined, Shape s, uint32_t *keys, uint32_t *values) {
  (void)joined, (void)s, (void)keys, (void)values;
  return 0;
}
void attend_rows(const float *joined, Shape s, const uint32_t *keys, const uint32_t *values,
                 int in_bytes, ptrdiff_t first, ptrdiff_t count, float *out) {
  (void)joined, (void)s, (void)keys, (void)values, (void)in_bytes, (void)first, (void)count;
  (void)out;
}
#endif
