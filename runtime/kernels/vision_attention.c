#include <math.h>

#include "vision_module.h"

#define ATTENDED_ROWS 256 /* of a head in one task */
#define LARGEST_HEADS 1024

/* Attention of all rows to all rows. Heads lie side by side. */
typedef struct {
  const AttentionKernel *kernel;
  const float *joined; /* [row_count][3][heads][size] */
  float *out;          /* [row_count][heads][size] */
  uint32_t *packed;    /* [2][heads][packed_words] */
  ptrdiff_t row_count, heads, size, parts;
  int may_be_bytes;
  uint8_t are_bytes[LARGEST_HEADS]; /* products of a head */
} Attention;

static Head head_of(const Attention *a, ptrdiff_t head) {
  ptrdiff_t width = a->heads * a->size;
  const float *queries = a->joined + head * a->size;
  return (Head){.queries = queries,
                .keys = queries + width,
                .values = queries + 2 * width,
                .out = a->out + head * a->size,
                .query_stride = 3 * width,
                .key_stride = 3 * width,
                .out_stride = width,
                .query_count = a->row_count,
                .key_count = a->row_count,
                .group_size = 1,
                .size = a->size,
                .scale = 1 / sqrtf((float)a->size),
                .is_bytes = a->are_bytes[head]};
}

static uint32_t *keys_of(const Attention *a, ptrdiff_t head) {
  return a->packed + 2 * head * packed_words(a->row_count, a->size);
}

/* A head whose products are chosen is packed at once, in one part: its rows are then still in a cache. */
static void pack_part(void *data, size_t index) {
  Attention *a = data;
  ptrdiff_t head = (ptrdiff_t)index / a->parts, part = (ptrdiff_t)index % a->parts;
  ptrdiff_t blocks = attention_blocks(a->row_count) / a->parts;
  Head one = head_of(a, head);
  if (a->may_be_bytes) one.is_bytes = a->are_bytes[head] = (uint8_t)a->kernel->bytes_suffice(&one);
  uint32_t *keys = keys_of(a, head);
  a->kernel->pack_blocks(&one, part * blocks, (part + 1) * blocks, keys,
                         keys + packed_words(a->row_count, a->size));
}

static void attend_part(void *data, size_t index) {
  const Attention *a = data;
  ptrdiff_t head = (ptrdiff_t)index / a->parts, first = (ptrdiff_t)index % a->parts * ATTENDED_ROWS;
  ptrdiff_t last = first + ATTENDED_ROWS < a->row_count ? first + ATTENDED_ROWS : a->row_count;
  Head one = head_of(a, head);
  const uint32_t *keys = keys_of(a, head), *values = keys + packed_words(a->row_count, a->size);
  for (ptrdiff_t row = first, queries = a->kernel->queries; row < last; row += queries)
    a->kernel->attend(&one, keys, values, NULL, row, last - row < queries ? last - row : queries);
}

static int are_attention_sizes(Py_ssize_t rows, Py_ssize_t heads, Py_ssize_t size) {
  if (!are_sizes(rows, heads, size)) return 0;
  if (size <= ATTENTION_LARGEST_HEAD && heads <= LARGEST_HEADS) return 1;
  PyErr_SetString(PyExc_ValueError, "heads are too many or too large");
  return 0;
}

PyObject *vision_packed_words(PyObject *self, PyObject *args) {
  (void)self;
  Py_ssize_t rows, heads, size;
  if (!PyArg_ParseTuple(args, "nnn", &rows, &heads, &size)) return NULL;
  if (!are_attention_sizes(rows, heads, size)) return NULL;
  return PyLong_FromSsize_t(2 * heads * packed_words(rows, size));
}

PyObject *vision_attend(PyObject *self, PyObject *args) {
  (void)self;
  PyObject *capsule;
  Py_buffer joined, out, packed;
  Attention work = {0};
  int may_be_bytes = 0;
  if (!PyArg_ParseTuple(args, "Oy*nnnw*w*|p", &capsule, &joined, &work.row_count, &work.heads,
                        &work.size, &out, &packed, &may_be_bytes))
    return NULL;
  const Threads *threads = threads_of(capsule);
  int sound = threads && are_attention_sizes(work.row_count, work.heads, work.size);
  if (sound) {
    Py_ssize_t numbers = work.row_count * work.heads * work.size;
    sound = has_bytes(&joined, 3 * numbers * 4) && has_bytes(&out, numbers * 4) &&
            has_bytes(&packed, 8 * work.heads * packed_words(work.row_count, work.size));
  }
  if (sound) {
    work.kernel = threads->level->attention;
    work.joined = joined.buf, work.out = out.buf, work.packed = packed.buf;
    Py_BEGIN_ALLOW_THREADS
    work.may_be_bytes = may_be_bytes && work.kernel->bytes_suffice;
    work.parts = work.may_be_bytes ? 1 : attention_blocks(work.row_count);
    pool_run(threads->pool, pack_part, &work, (size_t)(work.heads * work.parts));
    work.parts = (work.row_count + ATTENDED_ROWS - 1) / ATTENDED_ROWS;
    pool_run(threads->pool, attend_part, &work, (size_t)(work.heads * work.parts));
    Py_END_ALLOW_THREADS
  }
  PyBuffer_Release(&joined), PyBuffer_Release(&out), PyBuffer_Release(&packed);
  if (!sound) return NULL;
  Py_RETURN_NONE;
}
