/* What decode costs beside the weights is reading the caches. So the query takes in the keys' scales,
 * and sums of values are multiplied by theirs at the end: a number of a cache is made a float32 once for
 * the queries that share it and added with one instruction for each. Keys are read in one stream, then
 * values: a processor foresees few changes between streams.
 */
#include "decode_kernel.h"

#include <math.h>
#include <string.h>

#include "softmax.h"

#define LANES DECODE_UNIT
#define SPAN DECODE_SPAN
#define PAIR 2  /* queries that a key is multiplied with at once */
#define KEYS 8  /* whose products with a pair of queries registers hold */
#define WIDTH 8 /* vectors of sums of a pair that registers hold */
#define RUN 16  /* values that are added before sums are stored: larger runs break the stream */

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define KERNEL __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#define INLINE KERNEL static inline __attribute__((always_inline))

int decode_has_instructions(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq");
}

INLINE __m512 floats_of(const int8_t *x) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)x)));
}

/* 2 to the power of x <= 0, as Cephes' exp2f. */
INLINE __m512 power_of_two(__m512 x) {
  static const float terms[] = {1.535336188e-4f, 1.339887440e-3f, 9.618437357e-3f,
                                5.550332471e-2f, 2.402264791e-1f, 6.931472028e-1f, 1};
  __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 rest = _mm512_sub_ps(x, whole), sum = _mm512_set1_ps(terms[0]);
  for (int i = 1; i < 7; i++) sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(terms[i]));
  return _mm512_scalef_ps(sum, whole);
}

INLINE float power(float x) { return _mm512_cvtss_f32(power_of_two(_mm512_set1_ps(x))); }

/* Neighbouring quarters of each added: two of `a`, then two of `b`. */
INLINE __m512 quarters_summed(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

/* Sums over the lanes of 16 vectors. */
INLINE __m512 lanes_summed(const __m512 x[LANES]) {
  __m512 four[4];
  for (int i = 0; i < 4; i++) {
    const __m512 *some = x + 4 * i;
    __m512d two[2];
    for (int j = 0; j < 2; j++) {
      __m512 low = _mm512_unpacklo_ps(some[2 * j], some[2 * j + 1]);
      two[j] = _mm512_castps_pd(
          _mm512_add_ps(low, _mm512_unpackhi_ps(some[2 * j], some[2 * j + 1])));
    }
    __m512d low = _mm512_unpacklo_pd(two[0], two[1]), high = _mm512_unpackhi_pd(two[0], two[1]);
    four[i] = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
  }
  for (int i = 0; i < 2; i++) four[i] = quarters_summed(four[2 * i], four[2 * i + 1]);
  return quarters_summed(four[0], four[1]);
}

/* Scores of KEYS keys, at scores[query][SPAN]. */
INLINE void score(const int8_t *keys, const float *query, ptrdiff_t size, const int queries,
                  float *scores) {
  __m512 sums[LANES];
  for (int i = 0; i < LANES; i++) sums[i] = _mm512_setzero_ps();
  for (ptrdiff_t d = 0; d < size; d += LANES) {
    __m512 first = _mm512_loadu_ps(query + d), second = first;
    if (queries == PAIR) second = _mm512_loadu_ps(query + size + d);
    for (int k = 0; k < KEYS; k++) {
      __m512 x = floats_of(keys + k * size + d);
      sums[k] = _mm512_fmadd_ps(x, first, sums[k]);
      if (queries == PAIR) sums[KEYS + k] = _mm512_fmadd_ps(x, second, sums[KEYS + k]);
    }
  }
  __m512 all = lanes_summed(sums);
  _mm256_storeu_ps(scores, _mm512_castps512_ps256(all));
  if (queries == PAIR) _mm256_storeu_ps(scores + SPAN, _mm512_extractf32x8_ps(all, 1));
}

INLINE void scores_of(const int8_t *keys, ptrdiff_t count, const float *query, ptrdiff_t size,
                      const int queries, float *scores) {
  ptrdiff_t whole = count / KEYS * KEYS;
  for (ptrdiff_t k = 0; k < whole; k += KEYS)
    score(keys + k * size, query, size, queries, scores + k);
  if (whole == count) return;
  int8_t last[KEYS * DECODE_LARGEST_HEAD] = {0}; /* the caches may end with these keys */
  memcpy(last, keys + whole * size, (size_t)((count - whole) * size));
  score(last, query, size, queries, scores + whole);
}

/* Scores to weights, powers of two of scores less the highest; `total` becomes their sum. */
INLINE float softmax(float *scores, const float *mask, ptrdiff_t count, float *total) {
  __m512 top = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
  for (ptrdiff_t k = 0; k < count; k += LANES) {
    __mmask16 some = count - k < LANES ? (__mmask16)((1u << (count - k)) - 1) : 0xffff;
    __m512 added = _mm512_maskz_loadu_ps(some, mask + k), x = _mm512_loadu_ps(scores + k);
    x = _mm512_fmadd_ps(added, _mm512_set1_ps(LOG2_E), x);
    x = _mm512_mask_blend_ps(some, _mm512_set1_ps(-INFINITY), x);
    _mm512_storeu_ps(scores + k, x);
    top = _mm512_max_ps(top, x);
  }
  float highest = _mm512_reduce_max_ps(top);
  for (ptrdiff_t k = 0; k < count; k += LANES) {
    __m512 x = power_of_two(_mm512_sub_ps(_mm512_loadu_ps(scores + k), _mm512_set1_ps(highest)));
    _mm512_storeu_ps(scores + k, x);
    sum = _mm512_add_ps(sum, x);
  }
  *total = _mm512_reduce_add_ps(sum);
  return highest;
}

/* sums[query][size] += weights * values, for `vectors` vectors of them. */
INLINE void weighted_sum(const int8_t *values, ptrdiff_t count, ptrdiff_t size, const float *weights,
                   const int queries, const int vectors, float *sums) {
  __m512 held[PAIR][WIDTH];
  for (int q = 0; q < queries; q++)
    for (int v = 0; v < vectors; v++) held[q][v] = _mm512_loadu_ps(sums + q * size + v * LANES);
  for (ptrdiff_t k = 0; k < count; k++)
    for (int v = 0; v < vectors; v++) {
      __m512 x = floats_of(values + k * size + v * LANES);
      for (int q = 0; q < queries; q++)
        held[q][v] = _mm512_fmadd_ps(x, _mm512_set1_ps(weights[q * SPAN + k]), held[q][v]);
    }
  for (int q = 0; q < queries; q++)
    for (int v = 0; v < vectors; v++) _mm512_storeu_ps(sums + q * size + v * LANES, held[q][v]);
}

INLINE void weighted_sum_all(const int8_t *values, ptrdiff_t count, ptrdiff_t size, const float *weights,
                       const int queries, float *sums) {
  for (ptrdiff_t k = 0; k < count; k += RUN) {
    const int8_t *some = values + k * size;
    ptrdiff_t number = count - k < RUN ? count - k : RUN, d = 0;
    for (; d + WIDTH * LANES <= size; d += WIDTH * LANES)
      weighted_sum(some + d, number, size, weights + k, queries, WIDTH, sums + d);
    for (; d < size; d += LANES)
      weighted_sum(some + d, number, size, weights + k, queries, 1, sums + d);
  }
}

/* Keys `first` .. `first + count` of a head, for 1 or PAIR queries from `query` on. */
INLINE void attend(const DecodeStep *a, ptrdiff_t head, ptrdiff_t first, ptrdiff_t count, ptrdiff_t query,
                   ptrdiff_t part, const int queries) {
  float scores[PAIR * SPAN];
  ptrdiff_t size = a->size, row = (head * a->capacity + first) * size;
  scores_of(a->keys + row, count, a->queries + query * size, size, queries, scores);
  for (int q = 0; q < queries; q++)
    a->highest[part + q] = softmax(scores + q * SPAN, a->mask + first, count, a->totals + part + q);
  weighted_sum_all(a->values + row, count, size, scores, queries, a->sums + part * size);
}

static int is_hidden(float mask) { return mask <= HIDDEN; }

KERNEL void decode_attend(void *data, size_t head_and_span) {
  const DecodeStep *a = data;
  ptrdiff_t index = (ptrdiff_t)head_and_span, spans = decode_spans(a), head = index / spans;
  ptrdiff_t first = index % spans * SPAN, end = first + SPAN, part = index * a->group_size;
  ptrdiff_t query = head * a->group_size, left = a->group_size;
  if (end > a->key_count) end = a->key_count;
  while (first < end && is_hidden(a->mask[first])) first++;
  while (first < end && is_hidden(a->mask[end - 1])) end--;
  memset(a->sums + part * a->size, 0, sizeof(float) * (size_t)(left * a->size));
  for (; left >= PAIR; left -= PAIR, query += PAIR, part += PAIR)
    attend(a, head, first, end - first, query, part, PAIR);
  if (left) attend(a, head, first, end - first, query, part, 1);
}

INLINE void quantize_row(const float *x, const float *scales, ptrdiff_t size, int8_t *to) {
  __m512 lowest = _mm512_set1_ps(INT8_MIN), highest = _mm512_set1_ps(INT8_MAX);
  for (ptrdiff_t d = 0; d < size; d += LANES) {
    __m512 whole = _mm512_div_ps(_mm512_loadu_ps(x + d), _mm512_loadu_ps(scales + d));
    whole = _mm512_min_ps(_mm512_max_ps(whole, lowest), highest);
    _mm_storeu_si128((__m128i *)(to + d), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(whole)));
  }
}

KERNEL void decode_begin(const DecodeStep *a) {
  __m512 scale = _mm512_set1_ps(a->scale * LOG2_E);
  for (ptrdiff_t h = 0; h < a->kv_heads; h++) {
    ptrdiff_t row = h * a->size, last = (h * a->capacity + a->key_count - 1) * a->size;
    quantize_row(a->new_key + row, a->key_scales + row, a->size, a->keys + last);
    quantize_row(a->new_value + row, a->value_scales + row, a->size, a->values + last);
    for (ptrdiff_t q = h * a->group_size; q < (h + 1) * a->group_size; q++)
      for (ptrdiff_t d = 0; d < a->size; d += LANES)
        _mm512_storeu_ps(a->queries + q * a->size + d,
                         _mm512_mul_ps(_mm512_mul_ps(scale, _mm512_loadu_ps(a->key_scales + row + d)),
                                       _mm512_loadu_ps(a->query + q * a->size + d)));
  }
}

KERNEL void decode_end(const DecodeStep *a) {
  ptrdiff_t spans = decode_spans(a);
  for (ptrdiff_t q = 0; q < a->kv_heads * a->group_size; q++) {
    ptrdiff_t head = q / a->group_size, first = head * spans * a->group_size + q % a->group_size;
    float best = -INFINITY, total = 0, *out = a->out + q * a->size;
    for (ptrdiff_t s = 0; s < spans; s++) {
      float one = a->highest[first + s * a->group_size];
      if (one > best) best = one;
    }
    memset(out, 0, sizeof(float) * (size_t)a->size);
    for (ptrdiff_t s = 0; s < spans; s++) {
      ptrdiff_t part = first + s * a->group_size;
      float weight = power(a->highest[part] - best);
      total += weight * a->totals[part];
      for (ptrdiff_t d = 0; d < a->size; d++) out[d] += weight * a->sums[part * a->size + d];
    }
    for (ptrdiff_t d = 0; d < a->size; d++) out[d] *= a->value_scales[head * a->size + d] / total;
  }
}
#else
int decode_has_instructions(void) { return 0; }
void decode_begin(const DecodeStep *step) { (void)step; }
void decode_attend(void *data, size_t head_and_span) { (void)data, (void)head_and_span; }
void decode_end(const DecodeStep *step) { (void)step; }
#endif
