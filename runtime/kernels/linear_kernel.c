/* MatMulNBits of onnxruntime for processors with AVX512_VNNI: 4-bit and 8-bit weights as they lie in
 * the engine's file, inputs rounded to 8 bits block by block.
 *
 * Few rows read the weights where they are, once. Many rows compute TILE outputs at a time, whose
 * weights are transposed so that outputs lie across the vector: a sum then needs no addition over lanes, and the
 * scales of a block are applied to whole vectors.
 */
#include "linear_kernel.h"

#include <stdlib.h>
#include <string.h>

#define LANES 16
#define VECTORS (TILE / LANES)
#define SIDE 4              /* outputs of a row that are computed at a time */
#define APART (SPAN / SIDE) /* between them: each then reads one long stream of weights */

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define KERNEL __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))
#define INLINE KERNEL static inline __attribute__((always_inline))

int linear_has_instructions(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

/* A block of a row to integers within 127 of 0; returns their scale, NaN where a number is none. */
INLINE float quantize(const float *x, int64_t count, int8_t *out, int32_t *sum) {
  __m512 largest = _mm512_setzero_ps(), nothing = largest, zero = largest;
  for (int64_t i = 0; i < count; i += LANES) {
    __m512 some = _mm512_loadu_ps(x + i);
    largest = _mm512_max_ps(largest, _mm512_abs_ps(some));
    nothing = _mm512_fmadd_ps(some, zero, nothing);
  }
  float most = _mm512_reduce_max_ps(largest);
  __m512 inverse = _mm512_set1_ps(most > 0 ? 127 / most : 0);
  __m512i total = _mm512_setzero_si512();
  for (int64_t i = 0; i < count; i += LANES) {
    __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + i), inverse));
    total = _mm512_add_epi32(total, whole);
    _mm_storeu_si128((__m128i *)(out + i), _mm512_cvtsepi32_epi8(whole));
  }
  *sum = _mm512_reduce_add_epi32(total);
  return most / 127 + _mm512_reduce_add_ps(nothing);
}

/* In each group the even inputs first: the low halves of bytes of 4-bit weights are those. */
INLINE void separate_odd(int8_t *integers, int64_t count, int64_t group) {
  int8_t odd[64];
  for (int8_t *some = integers; some < integers + count; some += group) {
    for (int64_t i = 0; i < group / 2; i++) odd[i] = some[2 * i + 1];
    for (int64_t i = 0; i < group / 2; i++) some[i] = some[2 * i];
    memcpy(some + group / 2, odd, (size_t)(group / 2));
  }
}

/* Rows `first` .. `first + count` to integers [inputs / 4][count][4], with scales and zero-point terms in
 * [blocks][count].
 */
INLINE void prepare(Product *p, int64_t first, int64_t count, int64_t group) {
  const LinearLayer *layer = &p->layer;
  int64_t blocks = blocks_of(layer), zero = 1 << (layer->bits - 1), width = padded(layer);
  char *tile = (char *)(p->integers + first * width);
  int8_t *row = calloc((size_t)width, 1);
  if (!row) {
    p->lacks_memory = 1;
    return;
  }
  for (int64_t r = 0; r < count; r++) {
    for (int64_t b = 0; b < blocks; b++) {
      const float *x = p->x + (first + r) * layer->inputs + b * layer->block;
      int64_t place = first * blocks + b * count + r;
      int32_t sum;
      p->x_scales[place] = quantize(x, layer->block, row + b * layer->block, &sum);
      p->zero_point_terms[place] = (int32_t)(-zero * sum);
    }
    if (layer->bits == 4) separate_odd(row, width, group);
    for (int64_t i = 0; i < width / 4; i++) memcpy(tile + (i * count + r) * 4, row + 4 * i, 4);
  }
  free(row);
}

KERNEL void linear_prepare_row(void *data, size_t row) {
  Product *p = data;
  prepare(p, (int64_t)row, 1, group_of(&p->layer));
}

KERNEL void linear_prepare_tile(void *data, size_t tile) {
  Product *p = data;
  int64_t first = (int64_t)tile * HEIGHT, left = p->rows - first;
  prepare(p, first, left < HEIGHT ? left : HEIGHT, 8);
}

/* whole[i] += the product with a vector of the weights of SIDE outputs. */
INLINE void multiply(__m512i whole[SIDE], const uint8_t *weights[SIDE], int64_t byte, __mmask64 bytes,
                 const int8_t *x, const int bits) {
  const __m512i low = _mm512_set1_epi8(15);
  __m512i near = _mm512_loadu_si512(x);
  for (int i = 0; i < SIDE; i++) {
    __m512i packed = _mm512_maskz_loadu_epi8(bytes, weights[i] + byte);
    if (bits == 4) {
      __m512i odd = _mm512_and_si512(_mm512_srli_epi16(packed, 4), low);
      whole[i] = _mm512_dpbusd_epi32(whole[i], _mm512_and_si512(packed, low), near);
      whole[i] = _mm512_dpbusd_epi32(whole[i], odd, _mm512_loadu_si512(x + 64));
    } else {
      whole[i] = _mm512_dpbusd_epi32(whole[i], packed, near);
    }
  }
}

/* Outputs `output`, `output + APART` .. of one row, from weights as they lie: each of the SIDE streams
 * of weights goes on where the call before ended.
 */
INLINE void dot_products(const Product *p, int64_t row, int64_t output, const int bits) {
  const LinearLayer *layer = &p->layer;
  const int64_t blocks = blocks_of(layer), group = 512 / bits, stride = layer->inputs * bits / 8;
  const int8_t *x = p->integers + row * padded(layer);
  const float *x_scales = p->x_scales + row * blocks;
  const int32_t *zero_point_terms = p->zero_point_terms + row * blocks;
  const uint8_t *weights[SIDE];
  const float *scales[SIDE];
  __m512 sums[SIDE];
  for (int i = 0; i < SIDE; i++) {
    int64_t here = output + i * APART < layer->outputs ? output + i * APART : output;
    weights[i] = p->weights + here * stride;
    scales[i] = p->scales + here * blocks;
    sums[i] = _mm512_setzero_ps();
  }
  if (layer->block >= group) {
    int64_t vectors = layer->block / group, byte = 0;
    for (int64_t b = 0; b < blocks; b++) {
      __m512i whole[SIDE];
      for (int i = 0; i < SIDE; i++) whole[i] = _mm512_maskz_set1_epi32(1, zero_point_terms[b]);
      for (int64_t v = 0; v < vectors; v++, byte += 64, x += group)
        multiply(whole, weights, byte, ~0ull, x, bits);
      for (int i = 0; i < SIDE; i++)
        sums[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[i]),
                                  _mm512_set1_ps(scales[i][b] * x_scales[b]), sums[i]);
    }
  } else { /* several blocks to a vector */
    int64_t share = group / layer->block, lanes = LANES / share, byte = 0;
    __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    __m512i block = _mm512_srl_epi32(lane, _mm_cvtsi32_si128(__builtin_ctz((unsigned)lanes)));
    __mmask16 firsts = 0;
    for (int64_t i = 0; i < LANES; i += lanes) firsts |= (__mmask16)(1 << i);
    for (int64_t b = 0; b < blocks; b += share, byte += 64, x += group) {
      __mmask16 some = blocks - b < share ? (__mmask16)((1u << (blocks - b)) - 1)
                                          : (__mmask16)((1u << share) - 1);
      __mmask64 bytes = stride - byte < 64 ? (1ull << (stride - byte)) - 1 : ~0ull;
      __m512 x_scale = _mm512_maskz_loadu_ps(some, x_scales + b);
      __m512i zero_point = _mm512_maskz_loadu_epi32(some, zero_point_terms + b), whole[SIDE];
      for (int i = 0; i < SIDE; i++)
        whole[i] = _mm512_maskz_permutexvar_epi32(firsts, block, zero_point);
      multiply(whole, weights, byte, bytes, x, bits);
      for (int i = 0; i < SIDE; i++) {
        __m512 both = _mm512_mul_ps(x_scale, _mm512_maskz_loadu_ps(some, scales[i] + b));
        sums[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[i]),
                                  _mm512_permutexvar_ps(block, both), sums[i]);
      }
    }
  }
  for (int64_t i = 0; i < SIDE && output + i * APART < layer->outputs; i++)
    p->y[row * layer->outputs + output + i * APART] = _mm512_reduce_add_ps(sums[i]);
}

KERNEL void linear_few_rows(void *data, size_t span) {
  const Product *p = data;
  int64_t first = (int64_t)span * SPAN, last = first + APART;
  if (last > p->layer.outputs) last = p->layer.outputs;
  for (int64_t output = first; output < last; output++)
    for (int64_t row = 0; row < p->rows; row++)
      if (p->layer.bits == 4)
        dot_products(p, row, output, 4);
      else
        dot_products(p, row, output, 8);
}

/* Columns of 16 rows to rows. */
INLINE void transpose_square(__m512i r[LANES]) {
  __m512i t[LANES], u[LANES];
  for (int i = 0; i < LANES; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < LANES; i += 4)
    for (int j = 0; j < 2; j++) {
      u[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
      u[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
    }
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 2; j++) {
      t[i + 8 * j] = _mm512_shuffle_i32x4(u[i + 8 * j], u[i + 8 * j + 4], 0x88);
      t[i + 8 * j + 4] = _mm512_shuffle_i32x4(u[i + 8 * j], u[i + 8 * j + 4], 0xdd);
    }
  for (int i = 0; i < 8; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
  }
}

/* Weights of TILE outputs to [words][TILE], scales to [blocks][TILE]; zeros beyond the last. */
INLINE void transpose_weights(const Product *p, int64_t first, uint32_t *weights, float *scales) {
  const LinearLayer *layer = &p->layer;
  int64_t words = layer->inputs * layer->bits / 32, blocks = blocks_of(layer);
  for (int64_t i = 0; i < TILE; i++) {
    int exists = first + i < layer->outputs;
    for (int64_t b = 0; b < blocks; b++)
      scales[b * TILE + i] = exists ? p->scales[(first + i) * blocks + b] : 0;
  }
  for (int64_t begin = 0; begin < words; begin += LANES)
    for (int64_t v = 0; v < VECTORS; v++) {
      int64_t count = words - begin < LANES ? words - begin : LANES;
      __m512i square[LANES];
      for (int64_t i = 0; i < LANES; i++) {
        int64_t output = first + v * LANES + i;
        __mmask16 valid = output < layer->outputs ? (__mmask16)((1u << count) - 1) : 0;
        const uint8_t *from = p->weights + (output * words + begin) * 4;
        square[i] = _mm512_maskz_loadu_epi32(valid, from);
      }
      transpose_square(square);
      for (int64_t i = 0; i < count; i++)
        _mm512_store_si512(weights + (begin + i) * TILE + v * LANES, square[i]);
    }
}

#define EACH_ROW for (int r = 0; r < height; r++)
#define EACH_VECTOR for (int v = 0; v < VECTORS; v++)

/* whole[r] += x[r] * weights, four inputs at a time. */
INLINE void add(__m512i whole[HEIGHT][VECTORS], const int height, const __m512i weights[VECTORS],
                const int32_t *x) {
  EACH_ROW {
    __m512i one = _mm512_set1_epi32(x[r]);
    EACH_VECTOR whole[r][v] = _mm512_dpbusd_epi32(whole[r][v], weights[v], one);
  }
}

/* `height` rows of a tile. */
INLINE void rows_of_tile(const Product *p, int64_t first, const int height, const int bits,
                         int64_t output, const uint32_t *weights, const float *scales) {
  const LinearLayer *layer = &p->layer;
  int64_t blocks = blocks_of(layer), words = layer->block * bits / 32;
  const int32_t *x = (const int32_t *)(p->integers + first * padded(layer));
  const float *x_scales = p->x_scales + first * blocks;
  const int32_t *zero_point_terms = p->zero_point_terms + first * blocks;
  const __m512i low = _mm512_set1_epi8(15);
  __m512 sums[HEIGHT][VECTORS];
  EACH_ROW EACH_VECTOR sums[r][v] = _mm512_setzero_ps();
  for (int64_t b = 0; b < blocks;
       b++, x_scales += height, zero_point_terms += height, scales += TILE) {
    __m512i whole[HEIGHT][VECTORS];
    EACH_ROW EACH_VECTOR whole[r][v] = _mm512_set1_epi32(zero_point_terms[r]);
    for (int64_t w = 0; w < words; w++, weights += TILE) {
      __m512i near[VECTORS], odd[VECTORS];
      EACH_VECTOR near[v] = _mm512_load_si512(weights + v * LANES);
      if (bits == 4) EACH_VECTOR {
          odd[v] = _mm512_and_si512(_mm512_srli_epi16(near[v], 4), low);
          near[v] = _mm512_and_si512(near[v], low);
        }
      add(whole, height, near, x);
      x += height;
      if (bits == 4) {
        add(whole, height, odd, x);
        x += height;
      }
    }
    EACH_ROW {
      __m512 x_scale = _mm512_set1_ps(x_scales[r]);
      EACH_VECTOR sums[r][v] =
          _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(whole[r][v]), x_scale),
                          _mm512_load_ps(scales + v * LANES), sums[r][v]);
    }
  }
  EACH_ROW EACH_VECTOR {
    int64_t count = layer->outputs - output - v * LANES;
    __mmask16 valid = count >= LANES ? 0xffff : count > 0 ? (__mmask16)((1u << count) - 1) : 0;
    float *y = p->y + (first + r) * layer->outputs + output + v * LANES;
    _mm512_mask_storeu_ps(y, valid, sums[r][v]);
  }
}

INLINE void all_rows(const Product *p, const int bits, int64_t output, const uint32_t *weights,
                     const float *scales) {
  int64_t first = 0;
  for (; first + HEIGHT <= p->rows; first += HEIGHT)
    rows_of_tile(p, first, HEIGHT, bits, output, weights, scales);
  switch (p->rows - first) {
#define LAST(n) \
  case n: rows_of_tile(p, first, n, bits, output, weights, scales); break;
    LAST(1) LAST(2) LAST(3) LAST(4) LAST(5)
  }
}

KERNEL void linear_many_rows(void *data, size_t tile) {
  Product *p = data;
  int64_t words = p->layer.inputs * p->layer.bits / 32, output = (int64_t)tile * TILE;
  size_t weight_bytes = (size_t)(words * TILE) * 4;
  char *memory = aligned_alloc(64, weight_bytes + (size_t)(blocks_of(&p->layer) * TILE) * 4);
  if (!memory) {
    p->lacks_memory = 1;
    return;
  }
  uint32_t *weights = (uint32_t *)memory;
  float *scales = (float *)(memory + weight_bytes);
  transpose_weights(p, output, weights, scales);
  if (p->layer.bits == 4)
    all_rows(p, 4, output, weights, scales);
  else
    all_rows(p, 8, output, weights, scales);
  free(memory);
}
#else
int linear_has_instructions(void) { return 0; }
void linear_prepare_row(void *data, size_t row) { (void)data, (void)row; }
void linear_prepare_tile(void *data, size_t tile) { (void)data, (void)tile; }
void linear_few_rows(void *data, size_t span) { (void)data, (void)span; }
void linear_many_rows(void *data, size_t tile) { (void)data, (void)tile; }
#endif
