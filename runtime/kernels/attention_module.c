/* The attention kernel as a module of Python; `attention_kernel.pyi` describes it. */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <math.h>

#include "level.h"

static const AttentionKernel *kernel; /* of the fastest level that is claimed */

/* `head` of `heads` side by side, each of `size` numbers a row. */
typedef struct {
  Py_ssize_t rows, heads, size, head;
} Shape;

/* Whether the buffers have the lengths that the shape asks for; sets ValueError. */
static int is_sound(Shape *s, Py_buffer *joined, Py_buffer *keys, Py_buffer *values,
                    Py_buffer *out) {
  Py_ssize_t cells = joined->len / 4, known = s->rows > 0 && s->heads > 0;
  s->size = known ? cells / 3 / s->rows / s->heads : 0;
  int fits = known && s->size > 0 && s->size <= ATTENTION_LARGEST_HEAD &&
             joined->len == s->rows * 3 * s->heads * s->size * 4 && s->head >= 0 &&
             s->head < s->heads && keys->len == packed_words(s->rows, s->size) * 4 &&
             values->len == keys->len && (!out || out->len * 3 == joined->len);
  if (!fits) PyErr_SetString(PyExc_ValueError, "buffers do not fit rows, heads and head");
  else if (!kernel)
    PyErr_SetString(PyExc_ValueError, "there is no kernel for this processor");
  return fits && kernel;
}

/* The head in rows of queries, keys and values side by side. */
static Head head_of(const Shape *s, const float *joined, float *out) {
  Py_ssize_t width = s->heads * s->size, offset = s->head * s->size;
  Head head = {.queries = joined + offset};
  head.keys = head.queries + width, head.values = head.keys + width;
  head.query_stride = head.key_stride = 3 * width;
  head.query_count = head.key_count = s->rows;
  head.out = out ? out + offset : NULL;
  head.out_stride = width;
  head.group_size = 1;
  head.size = s->size;
  head.scale = 1 / sqrtf((float)s->size);
  return head;
}

static PyObject *packed_size(PyObject *self, PyObject *args) {
  (void)self;
  Py_ssize_t rows, size;
  if (!PyArg_ParseTuple(args, "nn", &rows, &size)) return NULL;
  if (rows < 0 || rows > INT32_MAX || size < 0 || size > ATTENTION_LARGEST_HEAD)
    return PyErr_SetString(PyExc_ValueError, "no such rows or head size"), NULL;
  return PyLong_FromSsize_t(packed_words(rows, size));
}

static PyObject *pack(PyObject *self, PyObject *args) {
  (void)self;
  Py_buffer joined, keys, values;
  Shape s = {0, 0, 0, 0};
  if (!PyArg_ParseTuple(args, "y*w*w*nnn", &joined, &keys, &values, &s.rows, &s.heads, &s.head))
    return NULL;
  int sound = is_sound(&s, &joined, &keys, &values, NULL);
  if (sound) {
    Head head = head_of(&s, joined.buf, NULL);
    Py_BEGIN_ALLOW_THREADS
    kernel->pack_blocks(&head, 0, attention_blocks(s.rows), keys.buf, values.buf);
    Py_END_ALLOW_THREADS
  }
  PyBuffer_Release(&joined), PyBuffer_Release(&keys), PyBuffer_Release(&values);
  return sound ? PyBool_FromLong(0) : NULL;
}

static PyObject *attend(PyObject *self, PyObject *args) {
  (void)self;
  Py_buffer joined, keys, values, out;
  Shape s = {0, 0, 0, 0};
  Py_ssize_t first, last;
  int is_int8;
  if (!PyArg_ParseTuple(args, "y*y*y*w*nnnpnn", &joined, &keys, &values, &out, &s.rows, &s.heads,
                        &s.head, &is_int8, &first, &last))
    return NULL;
  int sound = is_sound(&s, &joined, &keys, &values, &out);
  if (sound && (first < 0 || last > s.rows)) {
    PyErr_SetString(PyExc_ValueError, "rows out of range");
    sound = 0;
  }
  if (sound) {
    Head head = head_of(&s, joined.buf, out.buf);
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t row = first; row < last; row += kernel->queries)
      kernel->attend(&head, keys.buf, values.buf, NULL, row,
                     last - row < kernel->queries ? last - row : kernel->queries);
    Py_END_ALLOW_THREADS
  }
  PyBuffer_Release(&joined), PyBuffer_Release(&keys), PyBuffer_Release(&values);
  PyBuffer_Release(&out);
  if (!sound) return NULL;
  Py_RETURN_NONE;
}

static PyObject *supported(PyObject *self, PyObject *args) {
  (void)self, (void)args;
  return PyBool_FromLong(kernel && !level_is_claimed(&level_amx));
}

static PyMethodDef methods[] = {
    {"supported", supported, METH_NOARGS, "Whether this processor runs `attend`, and no better."},
    {"packed_size", packed_size, METH_VARARGS, "(rows, head_size): 32-bit words of packed keys."},
    {"pack", pack, METH_VARARGS, 
     "(joined, keys, values, rows, heads, head): packs one head; whether keys are int8."},
    {"attend", attend, METH_VARARGS,
     "(joined, keys, values, out, rows, heads, head, is_int8, first, last): some rows of one head."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "attention_kernel", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_attention_kernel(void) {
  PyObject *made = PyModule_Create(&module);
  for (const Level *const *level = all_levels; !kernel && *level; level++)
    if (level_is_claimed(*level)) kernel = (*level)->attention;
  if (made && PyModule_AddIntConstant(made, "LARGEST_HEAD", ATTENTION_LARGEST_HEAD)) {
    Py_DECREF(made);
    return NULL;
  }
  return made;
}
