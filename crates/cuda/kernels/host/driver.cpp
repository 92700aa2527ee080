// A fake of the NVIDIA driver for tests: a shared library with the driver's own functions, which runs the kernels on
// the host. It is as lazy as a device can be: copies and launches wait until somebody waits for them, so memory that is
// read or reused too early shows. Streams are in no order but that of their waits: what another stream has queued runs
// when a wait needs it, or, where a test wants it, copies run as early as no wait holds them back. It checks every address, poisons new memory, watches over the bytes around it,
// records every call, and fails or hangs where a test wants it.
//
// Configuration, from the environment or fake_set before the first call:
//   FAKE_CUDA_DEVICES   how many devices there are (1)
//   FAKE_CUDA_MEMORY    bytes of each (4 GiB)
//   FAKE_CUDA_COMPUTE   compute capability (8.0)
//   FAKE_CUDA_VERSION   what cuDriverGetVersion returns (13000)
//   FAKE_CUDA_PROCESSORS  multiprocessors (4)
//   FAKE_CUDA_ORDER     in which order threads of a block run: forward, reverse or shuffled (forward)
//   FAKE_CUDA_FAIL      failures as of fake_fail, call:nth:code, separated by commas
#define HOST_SHIM_MAIN
#include "driver_state.h"
#include "tensor_map.h"

using namespace fake_driver;

extern "C" {

// ---- Without a context ----

int cuDriverGetVersion(int* version) {
  std::unique_lock<std::mutex> lock(driver().mutex);
  if (int code = enter(lock, "cuDriverGetVersion", nullptr)) return code;
  *version = driver().version;
  return kSuccess;
}

int cuInit(unsigned) {
  std::unique_lock<std::mutex> lock(driver().mutex);
  if (int code = enter(lock, "cuInit", nullptr)) return code;
  if (driver().devices.empty()) return kNoDevice;
  driver().initialized = true;
  return kSuccess;
}

int cuGetErrorName(int code, const char** name) {
  auto found = kNames.find(code);
  *name = found == kNames.end() ? nullptr : found->second;
  return *name ? kSuccess : kInvalidValue;
}

int cuDeviceGetCount(int* count) {
  ENTER("cuDeviceGetCount");
  *count = int(driver().devices.size());
  return kSuccess;
}

int cuDeviceGet(int* handle, int ordinal) {
  ENTER_DEVICE("cuDeviceGet");
  *handle = ordinal;
  return kSuccess;
}

int cuDeviceGetName(char* name, int room, int ordinal) {
  ENTER_DEVICE("cuDeviceGetName");
  copy_text(name, room, "Fake GPU");
  return kSuccess;
}

int cuDeviceGetPCIBusId(char* id, int room, int ordinal) {
  ENTER_DEVICE("cuDeviceGetPCIBusId");
  // A bus that no machine has.
  copy_text(id, room, "FFFF:FF:0" + std::to_string(ordinal % 10) + ".0");
  return kSuccess;
}

int cuDeviceTotalMem_v2(size_t* bytes, int ordinal) {
  ENTER_DEVICE("cuDeviceTotalMem");
  *bytes = driver().memory;
  return kSuccess;
}

int cuDeviceGetAttribute(int* value, int attribute, int ordinal) {
  ENTER_DEVICE("cuDeviceGetAttribute");
  switch (attribute) {
    case 16: *value = driver().processors; return kSuccess;
    case 75: *value = driver().major; return kSuccess;
    case 76: *value = driver().minor; return kSuccess;
    default: return kInvalidValue;
  }
}

int cuDevicePrimaryCtxRetain(void** handle, int ordinal) {
  ENTER_DEVICE("cuDevicePrimaryCtxRetain");
  if (device->sticky) return device->sticky;
  if (!device->context) {
    device->context = std::make_unique<Context>();
    device->context->device = device;
  }
  device->holds++;
  record(ordinal, "call cuDevicePrimaryCtxRetain 0");
  *handle = device->context.get();
  return kSuccess;
}

int cuDevicePrimaryCtxRelease_v2(int ordinal) {
  ENTER_DEVICE("cuDevicePrimaryCtxRelease");
  if (device->holds == 0) return kInvalidContext;
  record(ordinal, "call cuDevicePrimaryCtxRelease 0");
  if (--device->holds == 0) destroy_context(*device);
  return kSuccess;
}

int cuDevicePrimaryCtxReset_v2(int ordinal) {
  ENTER_DEVICE("cuDevicePrimaryCtxReset");
  record(ordinal, "call cuDevicePrimaryCtxReset 0");
  destroy_context(*device);
  return kSuccess;
}

int cuCtxSetCurrent(void* handle) {
  ENTER("cuCtxSetCurrent");
  current_context = handle;
  return handle && !current() ? kInvalidContext : kSuccess;
}

int cuTensorMapEncodeTiled(void* map, unsigned type, unsigned rank, void* base, const uint64_t* sizes,
                           const uint64_t* pitches, const uint32_t* box, const uint32_t* steps, unsigned interleave,
                           unsigned swizzle, unsigned, unsigned fill) {
  ENTER("cuTensorMapEncodeTiled");
  uint32_t element_bytes = type == 6 || type == 9 ? 2 : type == 7 ? 4 : 0;
  if (rank != 2 || interleave || fill || swizzle > 3 || steps[0] != 1 || steps[1] != 1) return kInvalidValue;
  uint32_t swizzle_bytes = swizzle ? 16u << swizzle : 0;
  const char* wrong = host::encode_tensor_map(map, base, sizes[1], sizes[0], pitches[0], box[1], box[0], element_bytes,
                                              swizzle_bytes);
  if (wrong) record(-1, std::string("misuse cuTensorMapEncodeTiled: ") + wrong);
  return wrong ? kInvalidValue : kSuccess;
}

// ---- Memory ----

int cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
  ENTER_CONTEXT("cuMemGetInfo");
  *total = driver().memory;
  *free_bytes = driver().memory > device.used ? driver().memory - device.used : 0;
  return kSuccess;
}

int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
  ENTER_CONTEXT("cuMemAlloc");
  if (!bytes) return kInvalidValue;
  if (device.used + bytes > driver().memory) return kOutOfMemory;
  auto memory = std::make_unique<Memory>(bytes);
  if (!memory->allocated()) return kOutOfMemory;
  device.used += bytes;
  record(device.ordinal, "alloc " + std::to_string(bytes));
  unsigned char* start = memory->start();
  context->memory[start] = std::move(memory);
  *address = reinterpret_cast<uintptr_t>(start);
  return kSuccess;
}

int cuMemFree_v2(uint64_t address) {
  ENTER_CONTEXT("cuMemFree");
  // As on a device, work that may use the memory ends first.
  if (int code = execute_all(*context)) return code;
  auto found = context->memory.find(reinterpret_cast<const void*>(address));
  if (found == context->memory.end()) return fail_device(device, kIllegalAddress, "cuMemFree of no allocation");
  size_t bytes = found->second->bytes();
  if (!found->second->intact()) return illegal(device, "a write beside", bytes);
  context->memory.erase(found);
  device.used -= bytes;
  record(device.ordinal, "free " + std::to_string(bytes));
  return kSuccess;
}

int cuMemHostAlloc(void** address, size_t bytes, unsigned) {
  ENTER_CONTEXT("cuMemHostAlloc");
  if (!bytes) return kInvalidValue;
  auto memory = std::make_unique<Memory>(bytes);
  if (!memory->allocated()) return kOutOfMemory;
  device.pinned += bytes;
  record(device.ordinal, "alloc_host " + std::to_string(bytes));
  *address = memory->start();
  context->pinned[*address] = std::move(memory);
  return kSuccess;
}

int cuMemFreeHost(void* address) {
  ENTER_CONTEXT("cuMemFreeHost");
  auto found = context->pinned.find(address);
  if (found == context->pinned.end()) return fail_device(device, kIllegalAddress, "cuMemFreeHost of no allocation");
  const Memory& memory = *found->second;
  for (auto& other : driver().devices) {
    if (!other->context) continue;
    for (auto& stream : other->context->streams) {
      for (auto& operation : stream.second->queue) {
        if (operation.pinned && memory.holds(operation.pinned, 0)) {
          return fail_device(device, kIllegalAddress, "cuMemFreeHost while a copy uses the memory");
        }
      }
    }
  }
  if (!memory.intact()) return illegal(device, "a write on the host beside", memory.bytes());
  device.pinned -= memory.bytes();
  record(device.ordinal, "free_host " + std::to_string(memory.bytes()));
  context->pinned.erase(found);
  return kSuccess;
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream_handle) {
  ENTER_CONTEXT("cuMemcpyHtoDAsync");
  Stream* stream = find(context->streams, stream_handle);
  if (!stream) return kInvalidHandle;
  auto* at = reinterpret_cast<unsigned char*>(to);
  bool known = holds(context->memory, at, bytes) && is_pinned(from, bytes);
  if (!known) return illegal(device, "a copy to the device of", bytes);
  record(device.ordinal, "upload " + std::to_string(bytes));
  Operation copy{0, [=] { memcpy(at, from, bytes); return kSuccess; }, from};
  copy.may_be_early = true;
  return queue(*context, *stream, copy);
}

int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream_handle) {
  ENTER_CONTEXT("cuMemcpyDtoHAsync");
  Stream* stream = find(context->streams, stream_handle);
  if (!stream) return kInvalidHandle;
  auto* at = reinterpret_cast<const unsigned char*>(from);
  bool known = holds(context->memory, at, bytes) && is_pinned(to, bytes);
  if (!known) return illegal(device, "a copy to the host of", bytes);
  record(device.ordinal, "download " + std::to_string(bytes));
  return queue(*context, *stream, {0, [=] { memcpy(to, at, bytes); return kSuccess; }, to});
}

int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void* stream_handle) {
  ENTER_CONTEXT("cuMemsetD8Async");
  Stream* stream = find(context->streams, stream_handle);
  if (!stream) return kInvalidHandle;
  auto* at = reinterpret_cast<unsigned char*>(to);
  if (!holds(context->memory, at, bytes)) return illegal(device, "a set of", bytes);
  record(device.ordinal, "set " + std::to_string(bytes));
  return queue(*context, *stream, {0, [=] { memset(at, value, bytes); return kSuccess; }});
}

// ---- Streams and events ----

int cuStreamCreate(void** handle, unsigned) {
  ENTER_CONTEXT("cuStreamCreate");
  record(device.ordinal, "call cuStreamCreate 0");
  *handle = keep(context->streams, std::make_unique<Stream>());
  return kSuccess;
}

int cuStreamDestroy_v2(void* handle) {
  ENTER_CONTEXT("cuStreamDestroy");
  Stream* stream = find(context->streams, handle);
  if (!stream) return kInvalidHandle;
  record(device.ordinal, "call cuStreamDestroy 0");
  int code = execute(*context, *stream, UINT64_MAX);
  context->streams.erase(handle);
  return code;
}

int cuStreamSynchronize(void* handle) {
  ENTER_CONTEXT("cuStreamSynchronize");
  Stream* stream = find(context->streams, handle);
  if (!stream) return kInvalidHandle;
  record(device.ordinal, "call cuStreamSynchronize 0");
  return execute(*context, *stream, UINT64_MAX);
}

int cuEventCreate(void** handle, unsigned flags) {
  ENTER_CONTEXT("cuEventCreate");
  auto event = std::make_unique<Event>();
  event->timing = !(flags & 2);
  record(device.ordinal, "call cuEventCreate 0");
  *handle = keep(context->events, std::move(event));
  return kSuccess;
}

int cuEventDestroy_v2(void* handle) {
  ENTER_CONTEXT("cuEventDestroy");
  return context->events.erase(handle) ? kSuccess : kInvalidHandle;
}

int cuEventRecord(void* handle, void* stream_handle) {
  ENTER_CONTEXT("cuEventRecord");
  Event* event = find(context->events, handle);
  Stream* stream = find(context->streams, stream_handle);
  if (!event || !stream) return kInvalidHandle;
  record(device.ordinal, "call cuEventRecord 0");
  event->reached = false;
  event->stream = stream;
  // The event may be recorded again or destroyed before the stream gets here: only its latest record counts.
  uint64_t ticket = event->ticket = driver().tickets + 1;
  Context* of = context;
  Operation record{0, [=] {
    Event* event = find(of->events, handle);
    if (event && event->ticket == ticket) {
      event->reached = true;
      event->at = Clock::now();
    }
    return kSuccess;
  }};
  record.may_be_early = true;
  return queue(*context, *stream, record);
}

int cuStreamWaitEvent(void* stream_handle, void* handle, unsigned) {
  ENTER_CONTEXT("cuStreamWaitEvent");
  Event* event = find(context->events, handle);
  Stream* stream = find(context->streams, stream_handle);
  if (!event || !stream) return kInvalidHandle;
  record(device.ordinal, "call cuStreamWaitEvent 0");
  // An event that was never recorded is not waited for. Later records of it do not matter.
  if (!event->ticket) return kSuccess;
  const void* awaited = event->stream;
  uint64_t ticket = event->ticket;
  Context* of = context;
  Operation wait{0, [=] {
    Stream* stream = find(of->streams, awaited);
    return stream ? execute(*of, *stream, ticket) : kSuccess;
  }};
  wait.may_be_early = true;
  wait.awaited = awaited;
  wait.awaited_ticket = ticket;
  return queue(*context, *stream, wait);
}

int cuEventSynchronize(void* handle) {
  ENTER_CONTEXT("cuEventSynchronize");
  Event* event = find(context->events, handle);
  if (!event) return kInvalidHandle;
  record(device.ordinal, "call cuEventSynchronize 0");
  return event->ticket && !event->reached ? execute(*context, *event->stream, event->ticket) : kSuccess;
}

int cuEventElapsedTime_v2(float* milliseconds, void* start_handle, void* stop_handle) {
  ENTER_CONTEXT("cuEventElapsedTime");
  Event* start = find(context->events, start_handle);
  Event* stop = find(context->events, stop_handle);
  if (!start || !stop || !start->timing || !stop->timing || !start->ticket || !stop->ticket) return kInvalidHandle;
  if (!start->reached || !stop->reached) return kNotReady;
  *milliseconds = std::chrono::duration<float, std::milli>(stop->at - start->at).count();
  return kSuccess;
}

// ---- Kernels ----

int cuModuleLoadData(void** handle, const void*) {
  ENTER_CONTEXT("cuModuleLoadData");
  record(device.ordinal, "call cuModuleLoadData 0");
  *handle = keep(context->modules, std::make_unique<Module>());
  return kSuccess;
}

int cuModuleUnload(void* handle) {
  ENTER_CONTEXT("cuModuleUnload");
  record(device.ordinal, "call cuModuleUnload 0");
  return context->modules.erase(handle) ? kSuccess : kInvalidHandle;
}

int cuModuleGetFunction(void** handle, void* module_handle, const char* name) {
  ENTER_CONTEXT("cuModuleGetFunction");
  Module* module = find(context->modules, module_handle);
  if (!module) return kInvalidHandle;
  const host::Kernel* kernel = host::find(name);
  // Those of compute capability 9.0 are in its binary alone.
  bool other_architecture = strstr(name, "_sm90_") && driver().major != 9;
  if (!kernel || other_architecture) return kNotFound;
  auto& function = module->functions[name];
  if (!function) function = std::make_unique<Function>(Function{kernel});
  *handle = function.get();
  return kSuccess;
}

int cuFuncSetAttribute(void* handle, int attribute, int value) {
  ENTER_CONTEXT("cuFuncSetAttribute");
  if (attribute != 8 || value < 0 || size_t(value) > shared_limit()) return kInvalidValue;
  static_cast<Function*>(handle)->shared_limit = size_t(value);
  return kSuccess;
}

int cuLaunchKernel(void* handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared_bytes, void* stream_handle, void** parameters, void**) {
  ENTER_CONTEXT("cuLaunchKernel");
  Stream* stream = find(context->streams, stream_handle);
  if (!stream) return kInvalidHandle;
  auto* function = static_cast<Function*>(handle);
  const host::Kernel* kernel = function->kernel;
  host::Dim3 grid{grid_x, grid_y, grid_z}, block{block_x, block_y, block_z};
  std::stringstream text;
  text << "launch " << kernel->name;
  for (unsigned number : {grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes}) text << ' ' << number;
  record(device.ordinal, text.str());
  uint64_t threads = uint64_t(block_x) * block_y * block_z;
  bool fits = grid_x && grid_y && grid_z && grid_y <= 65535 && grid_z <= 65535 && threads && threads <= 1024 &&
              shared_bytes <= function->shared_limit && grid_x % kernel->cluster == 0;
  if (!fits) return kInvalidValue;
  auto copies = std::make_shared<Parameters>(*kernel, parameters);
  Context* of = context;
  return queue(*context, *stream, {0, [=] {
    std::vector<void*> pointers;
    for (auto& slot : copies->slots) pointers.push_back(slot.bytes);
    host::run(*kernel, grid, block, shared_bytes, pointers.data(), driver().order);
    return check_guards(*of, kernel->name);
  }});
}

// ---- For tests ----

// Sets a key of the configuration; after the first call of another function it has no effect.
void fake_set(const char* key, const char* value) {
  std::unique_lock<std::mutex> lock(driver().mutex);
  driver().settings[key] = value;
}

// The `nth` call from now of a function (by its name without _v2; 1 is the next) returns `code`. With -1 it hangs until
// fake_release, and then goes on.
void fake_fail(const char* call, int nth, int code) {
  std::unique_lock<std::mutex> lock(driver().mutex);
  configure();
  driver().failures.push_back({call, nth, code});
}

// Bytes of each device from now on.
void fake_set_memory(uint64_t bytes) {
  std::unique_lock<std::mutex> lock(driver().mutex);
  configure();
  driver().memory = bytes;
}

// Whether copies to the device run as early as the order of the streams allows, instead of as late.
void fake_set_early_copies(int early) {
  std::unique_lock<std::mutex> lock(driver().mutex);
  driver().early = early;
}

// Forgets the failures that have not happened, the log, and what was set since the configuration.
void fake_clear() {
  std::unique_lock<std::mutex> lock(driver().mutex);
  configure();
  driver().memory = driver().configured_memory;
  driver().early = false;
  driver().failures.clear();
  driver().log.clear();
}

// Lets those that hang go on.
void fake_release() {
  std::unique_lock<std::mutex> lock(driver().mutex);
  driver().releases++;
  driver().released.notify_all();
}

// Bytes allocated on a device, and of page-locked memory through it.
uint64_t fake_memory_in_use(int ordinal) {
  std::unique_lock<std::mutex> lock(driver().mutex);
  Device* device = device_of(ordinal);
  return device ? device->used : 0;
}

uint64_t fake_pinned_in_use(int ordinal) {
  std::unique_lock<std::mutex> lock(driver().mutex);
  Device* device = device_of(ordinal);
  return device ? device->pinned : 0;
}

// What was called since the last time, a line each: the device, then one of
//   launch NAME GRID(3) BLOCK(3) SHARED    alloc BYTES    free BYTES    alloc_host BYTES    free_host BYTES
//   upload BYTES    download BYTES    set BYTES    call NAME CODE    misuse TEXT
// To be given back to fake_log_free.
char* fake_log_take() {
  std::unique_lock<std::mutex> lock(driver().mutex);
  std::string text;
  for (auto& line : driver().log) text += line + "\n";
  driver().log.clear();
  return strdup(text.c_str());
}

void fake_log_free(char* text) { free(text); }

}  // extern "C"
