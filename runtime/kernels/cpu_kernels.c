/* The kernels as one library: operators for onnxruntime, and a module of Python that says which level
 * computes; `cpu_kernels.pyi` describes it. */
#include "vision_module.h"

#include <string.h>

#include "level.h"
#include "ort_ops.h"

/* What onnxruntime looks for in a library of operators. The domain lives as long as the process. */
__attribute__((visibility("default"))) OrtStatus *RegisterCustomOps(OrtSessionOptions *options,
                                                                    const OrtApiBase *base) {
  static OrtCustomOpDomain *domain;
  const OrtApi *api = base->GetApi(ORT_VERSION);
  if (!api) return NULL; /* too old: it then computes with its own */
  if (!domain) {
    TRY(api->CreateCustomOpDomain(DOMAIN, &domain));
    TRY(api->CustomOpDomain_Add(domain, &linear_op));
    TRY(api->CustomOpDomain_Add(domain, &gated_linear_op));
    TRY(api->CustomOpDomain_Add(domain, &residual_norm_op));
    TRY(api->CustomOpDomain_Add(domain, &head_norm_op));
    TRY(api->CustomOpDomain_Add(domain, &attention_op));
    TRY(api->CustomOpDomain_Add(domain, &attention_int8_op));
  }
  return api->AddCustomOpDomain(options, domain);
}

static int is_compiled(const Level *level) { return level->decode != NULL; }

static PyObject *names_of(int (*is_wanted)(const Level *)) {
  PyObject *names = PyList_New(0);
  for (const Level *const *level = all_levels; names && *level; level++) {
    if (!is_wanted(*level)) continue;
    PyObject *name = PyUnicode_FromString((*level)->name);
    if (!name || PyList_Append(names, name)) Py_CLEAR(names);
    Py_XDECREF(name);
  }
  return names;
}

static PyObject *claimed_levels(PyObject *self, PyObject *args) {
  (void)self, (void)args;
  return names_of(level_is_claimed);
}

static PyObject *compiled_levels(PyObject *self, PyObject *args) {
  (void)self, (void)args;
  return names_of(is_compiled);
}

static PyObject *use_level_named(PyObject *self, PyObject *args) {
  (void)self;
  const char *name;
  if (!PyArg_ParseTuple(args, "z", &name)) return NULL;
  if (!name) {
    use_level(NULL);
    Py_RETURN_NONE;
  }
  for (const Level *const *level = all_levels; *level; level++)
    if (!strcmp((*level)->name, name) && is_compiled(*level)) {
      use_level(*level);
      Py_RETURN_NONE;
    }
  return PyErr_Format(PyExc_ValueError, "no kernels were compiled for '%s'", name);
}

static PyObject *level_name(PyObject *self, PyObject *args) {
  (void)self, (void)args;
  const Level *level = level_in_use();
  if (!level) Py_RETURN_NONE;
  return PyUnicode_FromString(level->name);
}

/* `peaks` of the level in use; NULL with an exception set where there is none. */
static const Peak *peaks_in_use(void) {
  const Level *level = level_in_use();
  if (level && level->peaks) return *level->peaks;
  PyErr_SetString(PyExc_ValueError, "no level is in use");
  return NULL;
}

static PyObject *peak_loops(PyObject *self, PyObject *args) {
  (void)self, (void)args;
  const Peak *peak = peaks_in_use();
  PyObject *loops = peak ? PyList_New(0) : NULL;
  for (; loops && peak->name; peak++) {
    PyObject *loop = Py_BuildValue("(sd)", peak->name, peak->flop);
    if (!loop || PyList_Append(loops, loop)) Py_CLEAR(loops);
    Py_XDECREF(loop);
  }
  return loops;
}

static PyObject *run_peak_loop(PyObject *self, PyObject *args) {
  (void)self;
  Py_ssize_t index, rounds, count = 0;
  const Peak *peaks = peaks_in_use();
  if (!peaks || !PyArg_ParseTuple(args, "nn", &index, &rounds)) return NULL;
  while (peaks[count].name) count++;
  if (index < 0 || index >= count) return PyErr_Format(PyExc_ValueError, "no loop %zd", index);
  Py_BEGIN_ALLOW_THREADS
  peaks[index].run(rounds);
  Py_END_ALLOW_THREADS
  Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"peak_loops", peak_loops, METH_NOARGS, "Loops of multiply instructions of the level in use."},
    {"run_peak_loop", run_peak_loop, METH_VARARGS, "(index, rounds): run one of them."},
    {"claimed_levels", claimed_levels, METH_NOARGS, "Levels that this processor claims to run."},
    {"compiled_levels", compiled_levels, METH_NOARGS, "Levels that this library has kernels for."},
    {"use_level", use_level_named, METH_VARARGS, "(name): the level that computes; None for none."},
    {"level_in_use", level_name, METH_NOARGS, "Its name."},
    {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "cpu_kernels", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_cpu_kernels(void) {
  PyObject *made = PyModule_Create(&module);
  if (made && PyModule_AddFunctions(made, vision_methods)) Py_CLEAR(made);
  return made;
}
