/* The vision tower's kernels as functions of Python; `cpu_kernels.pyi` describes them. */
#ifndef VISION_MODULE_H
#define VISION_MODULE_H
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "level.h"
#include "pool.h"

/* Threads and the level that they compute with. */
typedef struct {
  Pool *pool;
  const Level *level;
} Threads;

/* NULL where the capsule is another's; sets ValueError. */
Threads *threads_of(PyObject *capsule);

/* Whether a buffer has so many bytes; sets ValueError. */
int has_bytes(const Py_buffer *buffer, Py_ssize_t bytes);

/* Whether products of these overflow nowhere; sets ValueError. */
int are_sizes(Py_ssize_t a, Py_ssize_t b, Py_ssize_t c);

PyObject *vision_packed_words(PyObject *self, PyObject *args);
PyObject *vision_attend(PyObject *self, PyObject *args);

extern PyMethodDef vision_methods[];
#endif
