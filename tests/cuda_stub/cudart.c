/* A CUDA runtime without a GPU: memory is the host's, copies are made, kernels do nothing.

It refuses what a real one refuses: more memory than there is, and, while a stream is captured,
allocations and waiting. Meant for the real libraries above it: do they put every operator of a graph
on the GPU, can its launches be recorded, what do they allocate? Numbers are not computed. */
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct counts {
    int64_t held_bytes, launches, captures, replays, refused_in_capture;
};

static struct counts counts;
static int64_t total_bytes = 24LL << 30;
static int capturing;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

enum { BLOCKS = 1 << 16 };
static struct block {
    void *address;
    size_t size;
} blocks[BLOCKS];

/* For the checks, by ctypes. */
void hollow_counts(struct counts *out) { *out = counts; }
void hollow_total(int64_t bytes) { total_bytes = bytes; }

static cudaError_t unless_capturing(void) {
    if (!capturing)
        return cudaSuccess;
    counts.refused_in_capture++;
    return cudaErrorStreamCaptureUnsupported;
}

static cudaError_t allocate(void **address, size_t size) {
    if (unless_capturing())
        return cudaErrorStreamCaptureUnsupported;
    pthread_mutex_lock(&lock);
    cudaError_t status = cudaErrorMemoryAllocation;
    int place = 0;
    while (place < BLOCKS && blocks[place].address)
        place++;
    if (place < BLOCKS && counts.held_bytes + (int64_t)size <= total_bytes) {
        void *new = mmap(NULL, size ? size : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                         -1, 0); /* takes no memory until it is touched */
        if (new != MAP_FAILED) {
            blocks[place] = (struct block){*address = new, size};
            counts.held_bytes += size;
            status = cudaSuccess;
        }
    }
    pthread_mutex_unlock(&lock);
    return status;
}

static cudaError_t release(void *address) {
    pthread_mutex_lock(&lock);
    for (int place = 0; address && place < BLOCKS; place++)
        if (blocks[place].address == address) {
            counts.held_bytes -= blocks[place].size;
            munmap(address, blocks[place].size ? blocks[place].size : 1);
            blocks[place].address = NULL;
            break;
        }
    pthread_mutex_unlock(&lock);
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **address, size_t size) { return allocate(address, size); }
cudaError_t cudaFree(void *address) { return address ? release(address) : cudaSuccess; }
cudaError_t cudaMallocFromPoolAsync(void **address, size_t size, cudaMemPool_t pool, cudaStream_t s) {
    return allocate(address, size);
}
cudaError_t cudaFreeAsync(void *address, cudaStream_t stream) { return release(address); }

cudaError_t cudaMallocHost(void **address, size_t size) {
    *address = calloc(size ? size : 1, 1);
    return *address ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaHostAlloc(void **address, size_t size, unsigned flags) {
    return cudaMallocHost(address, size);
}
cudaError_t cudaFreeHost(void *address) {
    free(address);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    *total = total_bytes;
    *free_bytes = total_bytes - counts.held_bytes;
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) {
    memcpy(to, from, size);
    return unless_capturing();
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
    if (!capturing)
        memcpy(to, from, size);
    return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t stream) {
    for (size_t row = 0; !capturing && row < height; row++)
        memcpy((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width);
    return cudaSuccess;
}
cudaError_t cudaMemcpyFromSymbol(void *to, const void *symbol, size_t size, size_t offset,
                                 enum cudaMemcpyKind kind) {
    memset(to, 0, size);
    return unless_capturing();
}
cudaError_t cudaMemset(void *address, int value, size_t size) {
    memset(address, value, size);
    return unless_capturing();
}
cudaError_t cudaMemsetAsync(void *address, int value, size_t size, cudaStream_t stream) {
    if (!capturing)
        memset(address, value, size);
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count) {
    *count = 1;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *device) {
    *device = 0;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *found, int device) {
    memset(found, 0, sizeof *found); /* the figures of an RTX 3060 */
    strcpy(found->name, "hollow");
    found->major = 8;
    found->minor = 6;
    found->totalGlobalMem = total_bytes;
    found->multiProcessorCount = 28;
    found->warpSize = 32;
    found->maxThreadsPerBlock = 1024;
    found->maxThreadsPerMultiProcessor = 1536;
    found->sharedMemPerBlock = 48 << 10;
    found->sharedMemPerBlockOptin = 99 << 10;
    found->sharedMemPerMultiprocessor = 100 << 10;
    found->regsPerBlock = found->regsPerMultiprocessor = 1 << 16;
    for (int axis = 0; axis < 3; axis++) {
        found->maxThreadsDim[axis] = axis < 2 ? 1024 : 64;
        found->maxGridSize[axis] = axis ? 65535 : INT32_MAX;
    }
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    struct cudaDeviceProp found;
    cudaGetDeviceProperties(&found, device);
    switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = found.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = found.minor; break;
    case cudaDevAttrMultiProcessorCount: *value = found.multiProcessorCount; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = found.sharedMemPerBlockOptin; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = found.sharedMemPerMultiprocessor;
        break;
    case cudaDevAttrMaxThreadsPerBlock: *value = found.maxThreadsPerBlock; break;
    case cudaDevAttrWarpSize: *value = found.warpSize; break;
    default: *value = 0;
    }
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version) {
    *version = 13020;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) { return cudaDriverGetVersion(version); }
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *found, const void *address) {
    memset(found, 0, sizeof *found);
    found->type = cudaMemoryTypeUnregistered;
    for (int place = 0; place < BLOCKS; place++) {
        const char *start = blocks[place].address;
        if (start && start <= (const char *)address && (const char *)address < start + blocks[place].size)
            found->type = cudaMemoryTypeDevice;
    }
    return cudaSuccess;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **entry, unsigned version,
                                             unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *result) {
    *entry = NULL;
    if (result)
        *result = cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}
const char *cudaGetErrorName(cudaError_t status) { return "an error of the hollow CUDA"; }
const char *cudaGetErrorString(cudaError_t status) { return cudaGetErrorName(status); }

static cudaError_t handle(void **made) {
    *made = malloc(16);
    return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t *made) { return handle((void **)made); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *made, unsigned f) { return handle((void **)made); }
cudaError_t cudaEventCreate(cudaEvent_t *made) { return handle((void **)made); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *made, unsigned f) { return handle((void **)made); }
cudaError_t cudaMemPoolCreate(cudaMemPool_t *made, const struct cudaMemPoolProps *properties) {
    return handle((void **)made);
}
cudaError_t cudaEventElapsedTime(float *elapsed_ms, cudaEvent_t start, cudaEvent_t end) {
    *elapsed_ms = 0;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { return unless_capturing(); }
cudaError_t cudaDeviceSynchronize(void) { return unless_capturing(); }
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return unless_capturing(); }

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    *status = capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    capturing = 1;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    capturing = 0;
    counts.captures++;
    return handle((void **)graph);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *made, cudaGraph_t graph, unsigned long long flags) {
    return handle((void **)made);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    counts.replays++;
    return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *found, const void *function) {
    memset(found, 0, sizeof *found);
    found->maxThreadsPerBlock = 1024;
    found->numRegs = 32;
    return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks_, const void *function,
                                                                   int size, size_t shared,
                                                                   unsigned flags) {
    *blocks_ = 1;
    return cudaSuccess;
}
cudaError_t cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **arguments,
                             size_t shared, cudaStream_t stream) {
    counts.launches++;
    return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **arguments,
                               size_t shared, cudaStream_t stream) {
    counts.launches++;
    return cudaSuccess;
}
cudaError_t cudaLaunchCooperativeKernel(const void *function, dim3 grid, dim3 block,
                                        void **arguments, size_t shared, cudaStream_t stream) {
    counts.launches++;
    return cudaSuccess;
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *how, const void *function, void **arguments) {
    counts.launches++;
    return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function) {
    *kernel = (cudaKernel_t)function;
    return cudaSuccess;
}

static __thread struct {
    dim3 grid, block;
    size_t shared;
    void *stream;
} configured;

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
    configured.grid = grid;
    configured.block = block;
    configured.shared = shared;
    configured.stream = stream;
    return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    *grid = configured.grid;
    *block = configured.block;
    *shared = configured.shared;
    *(void **)stream = configured.stream;
    return cudaSuccess;
}
void **__cudaRegisterFatBinary(void *binary) {
    static void *registered;
    return &registered;
}
