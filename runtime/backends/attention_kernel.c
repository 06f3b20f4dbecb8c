/* Softmax attention over all rows, in bfloat16 products with float32 sums (AVX512_BF16).
 *
 * Scores never leave the first-level cache: QUERIES rows of a head meet BLOCK keys at a time, with a
 * running maximum and sum (Dao et al., FlashAttention, arXiv 2205.14135). Scores are computed
 * transposed, keys down and queries across the vector: maximum, sum and scaling are then per lane,
 * and no head size pads a vector.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define BLOCK 128 /* keys per pass */
#define TILE 8 /* rows of a product that registers hold */
#define VECTORS 2
#define LANES 16
#define QUERIES (VECTORS * LANES)
#define LARGEST_HEAD 256

#if defined(__x86_64__) && defined(__GNUC__)
#define KERNEL __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#else
#define KERNEL
#endif

/* One head of one layer, as all functions below see it. `padded` is the head size in whole tiles. */
typedef struct {
  Py_ssize_t rows, heads, size, head;
} Shape;

static Py_ssize_t padded(Py_ssize_t size) { return (size + TILE - 1) / TILE * TILE; }
static Py_ssize_t blocks(Py_ssize_t rows) { return (rows + BLOCK - 1) / BLOCK; }

/* Numbers of 32 bits that the keys of a head take, or its values: two bfloat16 in each. */
static Py_ssize_t packed_words(Shape s) { return blocks(s.rows) * BLOCK / 2 * padded(s.size); }

/* Row `row` of part 0 (query), 1 (key) or 2 (value) of the joined rows; NULL beyond the last. */
static const float *row_of(const float *joined, Shape s, int part, Py_ssize_t row) {
  Py_ssize_t width = s.heads * s.size;
  return row < s.rows ? joined + (row * 3 + part) * width + s.head * s.size : NULL;
}

typedef union {
  uint16_t numbers[LARGEST_HEAD];
  uint32_t pairs[LARGEST_HEAD / 2];
} Row;

/* A row in bfloat16, to nearest even, times `scale`; zeros where there is none and behind its end. */
KERNEL static void narrow(const float *row, Py_ssize_t size, float scale, uint16_t *out) {
  for (Py_ssize_t d = row ? size : 0; d < padded(size); d++) out[d] = 0;
  if (!row) return;
  for (Py_ssize_t d = 0; d < size; d++) {
    float x = row[d] * scale;
    uint32_t bits;
    memcpy(&bits, &x, 4);
    out[d] = x == x ? (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16) : 0x7fc0;
  }
}

/* Keys to [rows / TILE][size / 2][TILE], pairs along the head. */
KERNEL static void pack_keys(const float *joined, Shape s, uint32_t *out) {
  Py_ssize_t tiles = blocks(s.rows) * BLOCK / TILE, steps = padded(s.size) / 2;
  Row row;
  for (Py_ssize_t t = 0; t < tiles; t++)
    for (Py_ssize_t i = 0; i < TILE; i++) {
      narrow(row_of(joined, s, 1, t * TILE + i), s.size, 1, row.numbers);
      for (Py_ssize_t d = 0; d < steps; d++) out[(t * steps + d) * TILE + i] = row.pairs[d];
    }
}

/* Values to [blocks][size / TILE][BLOCK / 2][TILE], pairs along the keys. */
KERNEL static void pack_values(const float *joined, Shape s, uint32_t *out) {
  Py_ssize_t tiles = padded(s.size) / TILE, pairs = BLOCK / 2;
  uint16_t even[LARGEST_HEAD], odd[LARGEST_HEAD];
  for (Py_ssize_t p = 0; p < blocks(s.rows) * pairs; p++) {
    uint32_t *block = out + p / pairs * tiles * pairs * TILE + p % pairs * TILE;
    narrow(row_of(joined, s, 2, 2 * p), s.size, 1, even);
    narrow(row_of(joined, s, 2, 2 * p + 1), s.size, 1, odd);
    for (Py_ssize_t t = 0; t < tiles; t++)
      for (Py_ssize_t i = 0; i < TILE; i++)
        block[t * pairs * TILE + i] = even[t * TILE + i] | (uint32_t)odd[t * TILE + i] << 16;
  }
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <immintrin.h>
#define INLINE KERNEL static inline __attribute__((always_inline))
#define EACH_VECTOR(v) for (int v = 0; v < VECTORS; v++)
#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7)

typedef __m512 Rows[TILE][VECTORS];
typedef __m512 Lanes[VECTORS];

/* Asked by every call: looks into what the compiler's library has kept, not at the processor. */
static int has_instructions(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512dq");
}

/* A matrix unit, which libraries use better than this kernel its vectors. */
static int has_amx_bf16(void) {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1);
}

/* sums[i] += a[step][i] * b[step] over the steps, two bfloat16 products in each. */
INLINE void multiply(const uint32_t *a, const uint32_t *b, Py_ssize_t steps, Rows sums) {
  for (Py_ssize_t step = 0; step < steps; step++) {
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

/* Scores [BLOCK][QUERIES] of one block; `highest` takes in their maximum. */
INLINE void score(const uint32_t *keys, const uint32_t *queries, Py_ssize_t valid,
                  Py_ssize_t steps, float *scores, Lanes highest) {
  for (Py_ssize_t t = 0; t < BLOCK / TILE; t++) {
    Rows sums;
#define ZERO(i) EACH_VECTOR(v) sums[i][v] = _mm512_setzero_ps();
    EACH_ROW(ZERO)
    multiply(keys + t * steps * TILE, queries, steps, sums);
    if ((t + 1) * TILE > valid) { /* what pads the last block has no weight */
#define HIDE(i)               \
  if (t * TILE + i >= valid) \
    EACH_VECTOR(v) sums[i][v] = _mm512_set1_ps(-__builtin_inff());
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
  for (Py_ssize_t p = 0; p < BLOCK / 2; p++) EACH_VECTOR(v) {
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
INLINE void gather(const uint32_t *values, const uint32_t *weights, Py_ssize_t size,
                   const Lanes shrink, float *out) {
  for (Py_ssize_t t = 0; t < size / TILE; t++) {
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

/* Rows `first` .. `first + count` of a head, count <= QUERIES. */
KERNEL static void attend_rows(const float *joined, Shape s, const uint32_t *keys,
                               const uint32_t *values, Py_ssize_t first, Py_ssize_t count,
                               float *out) {
  _Alignas(64) uint32_t queries[LARGEST_HEAD / 2 * QUERIES], weights[BLOCK / 2 * QUERIES];
  _Alignas(64) float scores[BLOCK * QUERIES], sums[LARGEST_HEAD * QUERIES], inverse[QUERIES];
  Row row;
  Py_ssize_t size = padded(s.size), steps = size / 2;
  /* Scores come out as powers of two. */
  float scale = 1.4426950408889634f / __builtin_sqrtf((float)s.size);
  for (Py_ssize_t i = 0; i < QUERIES; i++) {
    narrow(i < count ? row_of(joined, s, 0, first + i) : NULL, s.size, scale, row.numbers);
    for (Py_ssize_t d = 0; d < steps; d++) queries[d * QUERIES + i] = row.pairs[d];
  }
  Lanes highest, total;
  EACH_VECTOR(v) {
    highest[v] = _mm512_set1_ps(-__builtin_inff());
    total[v] = _mm512_setzero_ps();
  }
  memset(sums, 0, sizeof(float) * (size_t)(size * QUERIES));
  for (Py_ssize_t b = 0; b < blocks(s.rows); b++) {
    Lanes before, shrink;
    EACH_VECTOR(v) before[v] = highest[v];
    score(keys + b * BLOCK * steps, queries, s.rows - b * BLOCK, steps, scores, highest);
    EACH_VECTOR(v) {
      shrink[v] = power_of_two(_mm512_sub_ps(before[v], highest[v]));
      total[v] = _mm512_mul_ps(total[v], shrink[v]);
    }
    weigh(scores, highest, weights, total);
    gather(values + b * BLOCK / 2 * size, weights, size, shrink, sums);
  }
  EACH_VECTOR(v) _mm512_store_ps(inverse + v * LANES, _mm512_div_ps(_mm512_set1_ps(1), total[v]));
  for (Py_ssize_t i = 0; i < count; i++) {
    float *to = out + (first + i) * s.heads * s.size + s.head * s.size;
    for (Py_ssize_t d = 0; d < s.size; d++) to[d] = sums[d * QUERIES + i] * inverse[i];
  }
}
#else
static int has_instructions(void) { return 0; }
static int has_amx_bf16(void) { return 0; }
static void attend_rows(const float *joined, Shape s, const uint32_t *keys, const uint32_t *values,
                        Py_ssize_t first, Py_ssize_t count, float *out) {
  (void)joined, (void)s, (void)keys, (void)values, (void)first, (void)count, (void)out;
}
#endif

/* Whether the buffers have the lengths that the shape asks for; sets ValueError. */
static int is_sound(Shape *s, Py_buffer *joined, Py_buffer *keys, Py_buffer *values,
                    Py_buffer *out) {
  Py_ssize_t cells = joined->len / 4, known = s->rows > 0 && s->heads > 0;
  s->size = known ? cells / 3 / s->rows / s->heads : 0;
  int fits = known && s->size > 0 && s->size <= LARGEST_HEAD &&
             joined->len == s->rows * 3 * s->heads * s->size * 4 && s->head >= 0 &&
             s->head < s->heads && keys->len == packed_words(*s) * 4 &&
             values->len == keys->len && (!out || out->len * 3 == joined->len);
  if (!fits) PyErr_SetString(PyExc_ValueError, "buffers do not fit rows, heads and head");
  else if (!has_instructions())
    PyErr_SetString(PyExc_ValueError, "this processor lacks AVX512_BF16");
  return fits && has_instructions();
}

static PyObject *packed_size(PyObject *self, PyObject *args) {
  (void)self;
  Shape s = {0, 1, 0, 0};
  if (!PyArg_ParseTuple(args, "nn", &s.rows, &s.size)) return NULL;
  return PyLong_FromSsize_t(packed_words(s));
}

static PyObject *pack(PyObject *self, PyObject *args) {
  (void)self;
  Py_buffer joined, keys, values;
  Shape s = {0, 0, 0, 0};
  if (!PyArg_ParseTuple(args, "y*w*w*nnn", &joined, &keys, &values, &s.rows, &s.heads, &s.head))
    return NULL;
  int sound = is_sound(&s, &joined, &keys, &values, NULL);
  if (sound) {
    Py_BEGIN_ALLOW_THREADS
    pack_keys(joined.buf, s, keys.buf);
    pack_values(joined.buf, s, values.buf);
    Py_END_ALLOW_THREADS
  }
  PyBuffer_Release(&joined), PyBuffer_Release(&keys), PyBuffer_Release(&values);
  if (!sound) return NULL;
  Py_RETURN_NONE;
}

static PyObject *attend(PyObject *self, PyObject *args) {
  (void)self;
  Py_buffer joined, keys, values, out;
  Shape s = {0, 0, 0, 0};
  Py_ssize_t first, last;
  if (!PyArg_ParseTuple(args, "y*y*y*w*nnnnn", &joined, &keys, &values, &out, &s.rows, &s.heads,
                        &s.head, &first, &last))
    return NULL;
  int sound = is_sound(&s, &joined, &keys, &values, &out);
  if (sound && (first < 0 || last > s.rows)) {
    PyErr_SetString(PyExc_ValueError, "rows out of range");
    sound = 0;
  }
  if (sound) {
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t row = first; row < last; row += QUERIES)
      attend_rows(joined.buf, s, keys.buf, values.buf, row,
                  last - row < QUERIES ? last - row : QUERIES, out.buf);
    Py_END_ALLOW_THREADS
  }
  PyBuffer_Release(&joined), PyBuffer_Release(&keys), PyBuffer_Release(&values);
  PyBuffer_Release(&out);
  if (!sound) return NULL;
  Py_RETURN_NONE;
}

static PyObject *supported(PyObject *self, PyObject *args) {
  (void)self, (void)args;
  return PyBool_FromLong(has_instructions() && !has_amx_bf16());
}

static PyMethodDef methods[] = {
    {"supported", supported, METH_NOARGS, "Whether this processor runs `attend`, and no better."},
    {"packed_size", packed_size, METH_VARARGS, "(rows, head_size): 32-bit words of packed keys."},
    {"pack", pack, METH_VARARGS, "(joined, keys, values, rows, heads, head): packs one head."},
    {"attend", attend, METH_VARARGS,
     "(joined, keys, values, out, rows, heads, head, first, last): some rows of one head."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "attention_kernel", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_attention_kernel(void) {
  PyObject *made = PyModule_Create(&module);
  if (made && PyModule_AddIntMacro(made, LARGEST_HEAD)) {
    Py_DECREF(made);
    return NULL;
  }
  return made;
}
