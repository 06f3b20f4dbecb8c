#include "vision_module.h"

#include <stdlib.h>
#include <unistd.h>

#define NAME "edge_medgemma.vision_threads"
#define MOST_THREADS 1024
#define USUAL_CACHE_BYTES (512 << 10) /* where the system does not say */
#define LARGEST_SIZE (1 << 24) /* rows, inputs or outputs: no product of two overflows */

static void free_threads(PyObject *capsule) {
  Threads *threads = PyCapsule_GetPointer(capsule, NAME);
  Py_BEGIN_ALLOW_THREADS
  pool_free(threads->pool);
  Py_END_ALLOW_THREADS
  PyMem_Free(threads);
}

static PyObject *vision_threads(PyObject *self, PyObject *args) {
  (void)self;
  int count;
  if (!PyArg_ParseTuple(args, "i", &count)) return NULL;
  const Level *level = level_in_use();
  if (!level || !level->vision || count < 1 || count > MOST_THREADS)
    return PyErr_SetString(PyExc_ValueError, "no level is in use, or no such number of threads"), NULL;
  Threads *threads = PyMem_Malloc(sizeof *threads);
  if (!threads) return PyErr_NoMemory();
  *threads = (Threads){pool_new(count), level};
  PyObject *capsule = threads->pool ? PyCapsule_New(threads, NAME, free_threads) : PyErr_NoMemory();
  if (capsule) return capsule;
  if (threads->pool) pool_free(threads->pool);
  PyMem_Free(threads);
  return NULL;
}

Threads *threads_of(PyObject *capsule) { return PyCapsule_GetPointer(capsule, NAME); }

static int is_size(Py_ssize_t size) { return size > 0 && size <= LARGEST_SIZE; }

int has_bytes(const Py_buffer *buffer, Py_ssize_t bytes) {
  if (buffer->len == bytes) return 1;
  PyErr_Format(PyExc_ValueError, "a buffer has %zd bytes, %zd are expected", buffer->len, bytes);
  return 0;
}

/* Whether an optional buffer that is written has so many bytes and may be written. */
static int is_written(const Py_buffer *buffer, Py_ssize_t bytes) {
  if (!buffer->buf) return 1;
  if (!buffer->readonly) return has_bytes(buffer, bytes);
  PyErr_SetString(PyExc_ValueError, "a buffer that is written is read-only");
  return 0;
}

int are_sizes(Py_ssize_t a, Py_ssize_t b, Py_ssize_t c) {
  if (is_size(a) && is_size(b) && is_size(c)) return 1;
  PyErr_SetString(PyExc_ValueError, "rows, inputs or outputs out of range");
  return 0;
}

static Py_ssize_t input_bytes(const VisionKernel *kernel, Py_ssize_t rows, Py_ssize_t size,
                              int are_pairs) {
  Py_ssize_t words = are_pairs ? pair_words(size) : row_stride(size, kernel->notes);
  return rounded_up(rows, VISION_ROWS) * words * 4;
}

static Py_ssize_t weight_bytes(const VisionKernel *kernel, Py_ssize_t inputs, Py_ssize_t outputs,
                               int are_pairs) {
  return panels(kernel, outputs) *
         (are_pairs ? pair_panel_bytes(kernel, inputs) : panel_bytes(inputs, kernel->panel, kernel->notes));
}

static PyObject *vision_sizes(PyObject *self, PyObject *args) {
  (void)self;
  PyObject *capsule;
  Py_ssize_t rows, inputs, outputs;
  int are_pairs = 0;
  if (!PyArg_ParseTuple(args, "Onnn|p", &capsule, &rows, &inputs, &outputs, &are_pairs)) return NULL;
  const Threads *threads = threads_of(capsule);
  if (!threads || !are_sizes(rows, inputs, outputs)) return NULL;
  const VisionKernel *kernel = threads->level->vision;
  return Py_BuildValue("nn", input_bytes(kernel, rows, inputs, are_pairs),
                       weight_bytes(kernel, inputs, outputs, are_pairs));
}

typedef struct {
  const VisionKernel *kernel;
  const void *weights;
  ptrdiff_t inputs, outputs;
  uint8_t *packed;
  float *scales; /* NULL where the weights are int8 */
} Packing;

static void pack_panel(void *data, size_t index) {
  const Packing *a = data;
  ptrdiff_t panel = (ptrdiff_t)index;
  if (a->scales)
    a->kernel->pack_pairs(a->weights, a->inputs, a->outputs, panel,
                          a->packed + panel * pair_panel_bytes(a->kernel, a->inputs), a->scales);
  else
    a->kernel->pack(a->weights, a->inputs, a->outputs, panel,
                    a->packed + panel * panel_bytes(a->inputs, a->kernel->panel, a->kernel->notes));
}

static PyObject *vision_pack(PyObject *self, PyObject *args) {
  (void)self;
  PyObject *capsule;
  Py_buffer weights, packed, scales = {0};
  Packing work;
  if (!PyArg_ParseTuple(args, "Oy*nnw*|z*", &capsule, &weights, &work.inputs, &work.outputs, &packed,
                        &scales))
    return NULL;
  const Threads *threads = threads_of(capsule);
  int sound = threads && are_sizes(1, work.inputs, work.outputs);
  if (sound) {
    work.kernel = threads->level->vision, work.weights = weights.buf, work.packed = packed.buf;
    work.scales = scales.buf;
    Py_ssize_t count = panels(work.kernel, work.outputs);
    sound = has_bytes(&weights, work.inputs * work.outputs * (scales.buf ? 4 : 1)) &&
            has_bytes(&packed, weight_bytes(work.kernel, work.inputs, work.outputs, !!scales.buf)) &&
            is_written(&scales, 4 * work.outputs);
    if (sound) {
      Py_BEGIN_ALLOW_THREADS
      pool_run(threads->pool, pack_panel, &work, (size_t)count);
      Py_END_ALLOW_THREADS
    }
  }
  PyBuffer_Release(&weights), PyBuffer_Release(&packed), PyBuffer_Release(&scales);
  if (!sound) return NULL;
  Py_RETURN_NONE;
}

typedef struct {
  const VisionKernel *kernel;
  Quantisation work;
} QuantisationTask;

static void quantise_block(void *data, size_t index) {
  const QuantisationTask *task = data;
  ptrdiff_t first = (ptrdiff_t)index * VISION_ROWS, last = first + VISION_ROWS;
  task->kernel->quantise(&task->work, first,
                         last < task->work.row_count ? last : task->work.row_count);
}

static PyObject *vision_quantise(PyObject *self, PyObject *args) {
  (void)self;
  PyObject *capsule;
  Py_buffer rows, weight, bias, out, row_scales = {0};
  QuantisationTask task;
  Quantisation *work = &task.work;
  if (!PyArg_ParseTuple(args, "Oy*z*z*nnffw*|z*", &capsule, &rows, &weight, &bias, &work->row_count,
                        &work->size, &work->epsilon, &work->inverse_scale, &out, &row_scales))
    return NULL;
  const Threads *threads = threads_of(capsule);
  int sound = threads && are_sizes(work->row_count, work->size, 1);
  if (sound) {
    task.kernel = threads->level->vision;
    work->rows = rows.buf, work->weight = weight.buf, work->bias = bias.buf, work->out = out.buf;
    work->row_scales = row_scales.buf;
    Py_ssize_t size = 4 * work->size;
    sound = has_bytes(&rows, work->row_count * size) &&
            (!weight.buf || (has_bytes(&weight, size) && has_bytes(&bias, size))) &&
            has_bytes(&out, input_bytes(task.kernel, work->row_count, work->size, !!row_scales.buf)) &&
            is_written(&row_scales, 4 * work->row_count);
    if (sound) {
      Py_BEGIN_ALLOW_THREADS
      pool_run(threads->pool, quantise_block, &task,
               (size_t)((work->row_count + VISION_ROWS - 1) / VISION_ROWS));
      Py_END_ALLOW_THREADS
    }
  }
  PyBuffer_Release(&rows), PyBuffer_Release(&out), PyBuffer_Release(&row_scales);
  PyBuffer_Release(&weight), PyBuffer_Release(&bias);
  if (!sound) return NULL;
  Py_RETURN_NONE;
}

typedef struct {
  const VisionKernel *kernel;
  Linear work;
  ptrdiff_t groups, panels; /* of panels; panels of one */
} LinearTask;

/* Panels of a task, one of which has so many bytes: all its rows read them again, from half of what a thread
 * has of the second-level cache, where two share one. */
static ptrdiff_t task_panels(ptrdiff_t bytes) {
  long cache = 0;
#ifdef _SC_LEVEL2_CACHE_SIZE
  cache = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
  if (cache <= 0) cache = USUAL_CACHE_BYTES;
  ptrdiff_t count = cache / 4 / bytes;
  return count < 1 ? 1 : count > VISION_PANELS ? VISION_PANELS : count;
}

/* Neighbouring tasks read the same rows. */
static void multiply_block(void *data, size_t index) {
  const LinearTask *task = data;
  const Linear *work = &task->work;
  ptrdiff_t row = (ptrdiff_t)index / task->groups * VISION_BLOCK_ROWS, last = row + VISION_BLOCK_ROWS;
  ptrdiff_t panel = (ptrdiff_t)index % task->groups * task->panels, end = panel + task->panels;
  ptrdiff_t all = panels(task->kernel, work->outputs);
  if (last > work->row_count) last = work->row_count;
  if (end > all) end = all;
  if (work->row_scales) task->kernel->multiply_pairs(work, row, last, panel, end);
  else task->kernel->multiply(work, row, last, panel, end);
}

static void note_block(void *data, size_t index) {
  const LinearTask *task = data;
  ptrdiff_t first = (ptrdiff_t)index * VISION_ROWS, last = first + VISION_ROWS;
  task->kernel->note(&task->work, first, last < task->work.row_count ? last : task->work.row_count);
}

/* Zero where memory is too little. */
static int run_linear(Pool *pool, LinearTask *task) {
  Linear *work = &task->work;
  size_t blocks = (size_t)((work->row_count + VISION_ROWS - 1) / VISION_ROWS);
  if (task->kernel->note && !work->row_scales) {
    ptrdiff_t notes = rounded_up(work->row_count, VISION_ROWS) * note_words(work->inputs);
    work->notes = malloc(sizeof(int32_t) * (size_t)(notes + row_words(work->inputs) / 4));
    if (!work->notes) return 0;
    work->least_limits = work->notes + notes;
    task->kernel->least_limits(work, work->least_limits);
    pool_run(pool, note_block, task, blocks);
  }
  ptrdiff_t all = panels(task->kernel, work->outputs);
  task->panels = task_panels(weight_bytes(task->kernel, work->inputs, 1, work->row_scales != NULL));
  task->groups = (all + task->panels - 1) / task->panels;
  ptrdiff_t row_blocks = (work->row_count + VISION_BLOCK_ROWS - 1) / VISION_BLOCK_ROWS;
  pool_run(pool, multiply_block, task, (size_t)(row_blocks * task->groups));
  free(work->notes);
  return 1;
}

static int is_sound_linear(const VisionKernel *kernel, const Linear *work, const Py_buffer *rows,
                           const Py_buffer *weights, const Py_buffer *scales,
                           const Py_buffer *bias, const Py_buffer *out,
                           const Py_buffer *row_scales) {
  int are_pairs = row_scales->buf != NULL;
  Py_ssize_t outputs = 4 * work->outputs;
  Py_ssize_t written = work->after == ACTIVATED && !are_pairs
                           ? input_bytes(kernel, work->row_count, work->outputs, 0)
                           : work->row_count * outputs;
  if (work->after < STORED || work->after > ACTIVATED)
    return PyErr_SetString(PyExc_ValueError, "no such use of products"), 0;
  return (!are_pairs || has_bytes(row_scales, 4 * work->row_count)) &&
         has_bytes(rows, input_bytes(kernel, work->row_count, work->inputs, are_pairs)) &&
         has_bytes(weights, weight_bytes(kernel, work->inputs, work->outputs, are_pairs)) &&
         has_bytes(scales, outputs) && has_bytes(bias, outputs) && has_bytes(out, written);
}

static PyObject *vision_linear(PyObject *self, PyObject *args) {
  (void)self;
  PyObject *capsule;
  Py_buffer rows, weights, scales, bias, out, row_scales = {0};
  LinearTask task;
  Linear *work = &task.work;
  if (!PyArg_ParseTuple(args, "Oy*y*y*y*nnniw*f|z*", &capsule, &rows, &weights, &scales, &bias,
                        &work->row_count, &work->inputs, &work->outputs, &work->after, &out,
                        &work->inverse_scale, &row_scales))
    return NULL;
  const Threads *threads = threads_of(capsule);
  int sound = threads && are_sizes(work->row_count, work->inputs, work->outputs);
  if (sound) {
    task.kernel = threads->level->vision;
    sound = is_sound_linear(task.kernel, work, &rows, &weights, &scales, &bias, &out, &row_scales);
  }
  if (sound) {
    work->rows = rows.buf, work->weights = weights.buf, work->scales = scales.buf;
    work->bias = bias.buf, work->out = out.buf, work->activated = out.buf;
    work->row_scales = row_scales.buf, work->notes = NULL;
    Py_BEGIN_ALLOW_THREADS
    sound = run_linear(threads->pool, &task);
    Py_END_ALLOW_THREADS
    if (!sound) PyErr_NoMemory();
  }
  PyBuffer_Release(&rows), PyBuffer_Release(&weights), PyBuffer_Release(&scales);
  PyBuffer_Release(&bias), PyBuffer_Release(&out), PyBuffer_Release(&row_scales);
  if (!sound) return NULL;
  Py_RETURN_NONE;
}

PyMethodDef vision_methods[] = {
    {"vision_threads", vision_threads, METH_VARARGS, "(count): threads for the level in use."},
    {"vision_sizes", vision_sizes, METH_VARARGS,
     "(threads, rows, inputs, outputs, are_pairs): bytes of quantised rows and of packed weights."},
    {"vision_pack", vision_pack, METH_VARARGS, "(threads, weights, inputs, outputs, packed, scales)"},
    {"vision_quantise", vision_quantise, METH_VARARGS,
     "(threads, rows, weight, bias, row_count, size, epsilon, inverse_scale, out, row_scales)"},
    {"vision_linear", vision_linear, METH_VARARGS,
     "(threads, rows, weights, scales, bias, row_count, inputs, outputs, after, out, inverse_scale,"
     " row_scales)"},
    {"vision_packed_words", vision_packed_words, METH_VARARGS,
     "(rows, heads, head_size): 32-bit words of packed keys and values."},
    {"vision_attend", vision_attend, METH_VARARGS,
     "(threads, joined, rows, heads, head_size, out, packed, may_be_bytes)"},
    {NULL, NULL, 0, NULL}};
