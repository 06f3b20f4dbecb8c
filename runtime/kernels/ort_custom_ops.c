/* A library of operators for onnxruntime, which is a module of Python as well. */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "ort_custom_ops.h"

/* What onnxruntime looks for in a library of operators. The domain lives as long as the process. */
__attribute__((visibility("default"))) OrtStatus *RegisterCustomOps(OrtSessionOptions *options,
                                                                    const OrtApiBase *base) {
  static OrtCustomOpDomain *domain;
  const OrtApi *api = base->GetApi(ORT_VERSION);
  if (!api) return NULL; /* too old: it then computes with its own */
  if (!domain) {
    TRY(api->CreateCustomOpDomain(DOMAIN, &domain));
    TRY(api->CustomOpDomain_Add(domain, &linear_op));
    TRY(api->CustomOpDomain_Add(domain, &attention_op));
    TRY(api->CustomOpDomain_Add(domain, &attention_int8_op));
  }
  return api->AddCustomOpDomain(options, domain);
}

static PyObject *supported(PyObject *self, PyObject *args) {
  (void)self, (void)args;
  return PyBool_FromLong(linear_is_supported());
}

static PyObject *has_attention(PyObject *self, PyObject *args) {
  (void)self, (void)args;
  return PyBool_FromLong(prefill_is_supported());
}

static PyMethodDef methods[] = {
    {"supported", supported, METH_NOARGS, "Whether this processor has AVX512_VNNI."},
    {"has_attention", has_attention, METH_NOARGS, "Whether it has AVX512_BF16 as well."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "ort_custom_ops", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_ort_custom_ops(void) { return PyModule_Create(&module); }
