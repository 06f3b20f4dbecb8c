/* The vision tower's kernels as functions of Python; `cpu_kernels.pyi` describes them. */
#ifndef VISION_MODULE_H
#define VISION_MODULE_H
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

extern PyMethodDef vision_methods[];
#endif
