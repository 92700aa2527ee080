// The state of the fake driver (driver.cpp): its configuration, memory, contexts, queues and log.
#pragma once
#include "shim.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <sstream>

namespace fake_driver {

using Clock = std::chrono::steady_clock;

constexpr int kSuccess = 0, kInvalidValue = 1, kOutOfMemory = 2, kNotInitialized = 3;
constexpr int kNoDevice = 100, kInvalidDevice = 101;
constexpr int kInvalidContext = 201, kInvalidHandle = 400, kNotFound = 500, kNotReady = 600, kIllegalAddress = 700;
constexpr int kHang = -1;

inline const std::map<int, const char*> kNames = {
    {0, "CUDA_SUCCESS"},
    {1, "CUDA_ERROR_INVALID_VALUE"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY"},
    {3, "CUDA_ERROR_NOT_INITIALIZED"},
    {100, "CUDA_ERROR_NO_DEVICE"},
    {101, "CUDA_ERROR_INVALID_DEVICE"},
    {201, "CUDA_ERROR_INVALID_CONTEXT"},
    {209, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
    {214, "CUDA_ERROR_ECC_UNCORRECTABLE"},
    {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"},
    {400, "CUDA_ERROR_INVALID_HANDLE"},
    {500, "CUDA_ERROR_NOT_FOUND"},
    {600, "CUDA_ERROR_NOT_READY"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS"},
    {701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"},
    {702, "CUDA_ERROR_LAUNCH_TIMEOUT"},
    {715, "CUDA_ERROR_ILLEGAL_INSTRUCTION"},
    {716, "CUDA_ERROR_MISALIGNED_ADDRESS"},
    {719, "CUDA_ERROR_LAUNCH_FAILED"},
    {999, "CUDA_ERROR_UNKNOWN"},
};

// After these a context returns the same error for every call.
inline bool is_sticky(int code) {
  static const std::set<int> sticky = {214, 220, 700, 702, 710, 714, 715, 716, 717, 718, 719, 999};
  return sticky.count(code);
}

// ---- Memory ----

constexpr size_t kGuard = 64, kAlignment = 256;
constexpr unsigned char kGuardByte = 0xa5, kPoison = 0xff;

// Bytes between two guards, poisoned at first.
class Memory {
 public:
  explicit Memory(size_t bytes) : bytes_(bytes) {
    if (posix_memalign(reinterpret_cast<void**>(&block_), kAlignment, kAlignment + bytes + kGuard)) block_ = nullptr;
    if (!block_) return;
    memset(block_, kGuardByte, kAlignment);
    memset(start(), kPoison, bytes);
    memset(start() + bytes, kGuardByte, kGuard);
  }
  ~Memory() { free(block_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  bool allocated() const { return block_; }
  unsigned char* start() const { return block_ + kAlignment; }
  size_t bytes() const { return bytes_; }
  bool holds(const void* from, size_t bytes) const {
    auto at = reinterpret_cast<uintptr_t>(from), first = reinterpret_cast<uintptr_t>(start());
    return at >= first && bytes <= bytes_ && at - first <= bytes_ - bytes;
  }
  bool intact() const {
    for (size_t i = kAlignment - kGuard; i < kAlignment; i++) if (block_[i] != kGuardByte) return false;
    for (size_t i = 0; i < kGuard; i++) if (start()[bytes_ + i] != kGuardByte) return false;
    return true;
  }

 private:
  unsigned char* block_ = nullptr;
  size_t bytes_;
};

using Memories = std::map<const void*, std::unique_ptr<Memory>>;

inline bool holds(const Memories& memories, const void* from, size_t bytes) {
  auto after = memories.upper_bound(from);
  return after != memories.begin() && std::prev(after)->second->holds(from, bytes);
}

// ---- What a context owns ----

struct Event {
  bool timing = false;
  // 0: never recorded. Otherwise the number of its latest record, and whether that was reached.
  uint64_t ticket = 0;
  bool reached = false;
  Clock::time_point at;
  struct Stream* stream = nullptr;
};

struct Operation {
  uint64_t ticket;
  std::function<int()> run;
  // Page-locked memory that it uses.
  const void* pinned = nullptr;
  // A copy to the device, a record or a wait: no kernel, and nothing that writes to the host.
  bool may_be_early = false;
  // What a wait waits for: a stream, and the number of an operation in it.
  const void* awaited = nullptr;
  uint64_t awaited_ticket = 0;
};

struct Stream {
  std::deque<Operation> queue;

  // Whether everything up to that number has been done.
  bool is_past(uint64_t ticket) const { return queue.empty() || queue.front().ticket > ticket; }
};

struct Function {
  const host::Kernel* kernel;
  size_t shared_limit = 48 << 10;
};

struct Module {
  std::map<std::string, std::unique_ptr<Function>> functions;
};

struct Device;

struct Context {
  Device* device;
  Memories memory, pinned;
  std::map<const void*, std::unique_ptr<Stream>> streams;
  std::map<const void*, std::unique_ptr<Event>> events;
  std::map<const void*, std::unique_ptr<Module>> modules;
};

struct Device {
  int ordinal = 0;
  int holds = 0;
  int sticky = kSuccess;
  size_t used = 0, pinned = 0;
  std::unique_ptr<Context> context;
};

// ---- The driver ----

struct Failure {
  std::string call;
  int nth, code;
};

struct Driver {
  std::mutex mutex;
  std::condition_variable released;
  uint64_t releases = 0, tickets = 0;
  bool configured = false, initialized = false;
  std::map<std::string, std::string> settings;
  size_t memory = size_t(4) << 30, configured_memory = memory;
  bool early = false;
  int version = 13000, major = 8, minor = 0, processors = 4;
  host::Order order = host::Order::Forward;
  std::vector<std::unique_ptr<Device>> devices;
  std::vector<Failure> failures;
  std::vector<std::string> log;
};

inline Driver& driver() {
  static Driver* all = new Driver;  // Never destroyed: a thread may still be within it when the process ends.
  return *all;
}

inline thread_local const void* current_context = nullptr;

inline void record(int device, const std::string& text) { driver().log.push_back(std::to_string(device) + " " + text); }

inline void add_failures(const std::string& list) {
  std::stringstream entries(list);
  for (std::string entry; std::getline(entries, entry, ',');) {
    size_t first = entry.find(':'), second = entry.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) {
      host::fail("FAKE_CUDA_FAIL is call:nth:code, not " + entry);
    }
    int nth = atoi(entry.c_str() + first + 1), code = atoi(entry.c_str() + second + 1);
    driver().failures.push_back({entry.substr(0, first), nth, code});
  }
}

inline std::string setting(const char* name, const char* otherwise) {
  auto set = driver().settings.find(name);
  if (set != driver().settings.end()) return set->second;
  const char* value = getenv(name);
  return value && *value ? value : otherwise;
}

inline void configure() {
  Driver& all = driver();
  if (all.configured) return;
  all.configured = true;
  all.memory = all.configured_memory = strtoull(setting("FAKE_CUDA_MEMORY", "4294967296").c_str(), nullptr, 10);
  all.version = atoi(setting("FAKE_CUDA_VERSION", "13000").c_str());
  all.processors = atoi(setting("FAKE_CUDA_PROCESSORS", "4").c_str());
  std::string compute = setting("FAKE_CUDA_COMPUTE", "8.0"), order = setting("FAKE_CUDA_ORDER", "forward");
  if (sscanf(compute.c_str(), "%d.%d", &all.major, &all.minor) != 2) {
    host::fail("FAKE_CUDA_COMPUTE is major.minor, not " + compute);
  }
  if (order == "reverse") all.order = host::Order::Reverse;
  if (order == "shuffled") all.order = host::Order::Shuffled;
  int devices = atoi(setting("FAKE_CUDA_DEVICES", "1").c_str());
  for (int i = 0; i < devices; i++) {
    all.devices.push_back(std::make_unique<Device>());
    all.devices.back()->ordinal = i;
  }
  add_failures(setting("FAKE_CUDA_FAIL", ""));
}

inline Device* device_of(int ordinal) {
  configure();
  auto& devices = driver().devices;
  return ordinal >= 0 && size_t(ordinal) < devices.size() ? devices[size_t(ordinal)].get() : nullptr;
}

// The current context, if it is alive.
inline Context* current() {
  for (auto& device : driver().devices) {
    if (device->context && device->context.get() == current_context) return device->context.get();
  }
  return nullptr;
}

// The device breaks: its context returns `code` from now on.
inline int fail_device(Device& device, int code, const std::string& why) {
  record(device.ordinal, "misuse " + why);
  return device.sticky = code;
}

inline int illegal(Device& device, const char* what, size_t bytes) {
  return fail_device(device, kIllegalAddress, std::string(what) + " " + std::to_string(bytes) + " bytes");
}

// What every function does first: waits for its turn, fails or hangs if a test wants it.
inline int enter(std::unique_lock<std::mutex>& lock, const char* call, Device* device) {
  Driver& all = driver();
  configure();
  for (size_t i = 0; i < all.failures.size(); i++) {
    Failure& failure = all.failures[i];
    if (failure.call != call || --failure.nth > 0) continue;
    int code = failure.code;
    all.failures.erase(all.failures.begin() + long(i));
    record(device ? device->ordinal : -1, std::string("call ") + call + " " + std::to_string(code));
    if (code == kHang) {
      uint64_t releases = all.releases;
      all.released.wait(lock, [&] { return all.releases != releases; });
      return kSuccess;
    }
    if (device && is_sticky(code)) device->sticky = code;
    return code;
  }
  return kSuccess;
}

// The start of a function that is about no device.
#define ENTER(call)                                         \
  std::unique_lock<std::mutex> lock(driver().mutex);        \
  if (int code_ = enter(lock, call, nullptr)) return code_; \
  if (!driver().initialized) return kNotInitialized

// The start of a function about a device.
#define ENTER_DEVICE(call)                                 \
  std::unique_lock<std::mutex> lock(driver().mutex);       \
  Device* device = device_of(ordinal);                     \
  if (int code_ = enter(lock, call, device)) return code_; \
  if (!driver().initialized) return kNotInitialized;       \
  if (!device) return kInvalidDevice

// The start of a function that works in the current context.
#define ENTER_CONTEXT(call)                                                                \
  std::unique_lock<std::mutex> lock(driver().mutex);                                       \
  Context* context = current();                                                            \
  if (int code_ = enter(lock, call, context ? context->device : nullptr)) return code_;    \
  if (!driver().initialized) return kNotInitialized;                                       \
  context = current();                                                                     \
  if (!context) return kInvalidContext;                                                    \
  Device& device = *context->device;                                                       \
  if (device.sticky) return device.sticky

template <class T>
inline T* find(const std::map<const void*, std::unique_ptr<T>>& all, const void* handle) {
  auto found = all.find(handle);
  return found == all.end() ? nullptr : found->second.get();
}

template <class T>
inline T* keep(std::map<const void*, std::unique_ptr<T>>& all, std::unique_ptr<T> thing) {
  T* handle = thing.get();
  all[handle] = std::move(thing);
  return handle;
}

// Does what need not be late, in all streams, as far as waits allow it. What is early is the test's choice: copies that
// nothing holds back run at once, and so overwrite memory that a kernel queued before still has to read.
inline int advance(Context& context) {
  if (!driver().early) return kSuccess;
  for (bool moved = true; moved;) {
    moved = false;
    for (auto& entry : context.streams) {
      auto& queue = entry.second->queue;
      while (!queue.empty() && queue.front().may_be_early) {
        const Operation& next = queue.front();
        Stream* awaited = next.awaited ? find(context.streams, next.awaited) : nullptr;
        if (awaited && !awaited->is_past(next.awaited_ticket)) break;
        Operation operation = std::move(queue.front());
        queue.pop_front();
        if (int code = operation.run()) return code;
        moved = true;
      }
    }
  }
  return kSuccess;
}

inline int queue(Context& context, Stream& stream, Operation operation) {
  operation.ticket = ++driver().tickets;
  stream.queue.push_back(std::move(operation));
  return advance(context);
}

// Does what is queued, up to that ticket.
inline int execute(Context& context, Stream& stream, uint64_t until) {
  Device& device = *context.device;
  while (!stream.is_past(until)) {
    if (device.sticky) return device.sticky;
    Operation operation = std::move(stream.queue.front());
    stream.queue.pop_front();
    if (int code = operation.run()) return code;
    if (int code = advance(context)) return code;
  }
  return device.sticky;
}

inline int execute_all(Context& context) {
  for (auto& stream : context.streams) if (int code = execute(context, *stream.second, UINT64_MAX)) return code;
  return kSuccess;
}

// The kernel wrote behind or before an allocation.
inline int check_guards(Context& context, const std::string& kernel) {
  for (const Memories* memories : {&context.memory, &context.pinned}) {
    for (auto& memory : *memories) {
      if (memory.second->intact()) continue;
      std::string bytes = std::to_string(memory.second->bytes());
      return fail_device(*context.device, kIllegalAddress, kernel + " wrote beside " + bytes + " bytes");
    }
  }
  return kSuccess;
}

inline bool is_pinned(const void* from, size_t bytes) {
  for (auto& device : driver().devices) if (device->context && holds(device->context->pinned, from, bytes)) return true;
  return false;
}

inline void destroy_context(Device& device) {
  device.context.reset();
  device.sticky = kSuccess;
  device.used = device.pinned = 0;
}

inline size_t shared_limit() {
  const Driver& all = driver();
  if (all.major == 8 && all.minor == 0) return 163 << 10;
  if (all.major == 9 || all.major == 10) return 227 << 10;
  return 99 << 10;
}

// Parameters, copied at the launch.
struct Parameters {
  struct alignas(128) Slot { unsigned char bytes[128]; };
  std::vector<Slot> slots;
  Parameters(const host::Kernel& kernel, void** from) : slots(kernel.parameter_bytes.size()) {
    for (size_t i = 0; i < slots.size(); i++) {
      if (kernel.parameter_bytes[i] > sizeof(Slot)) host::fail(std::string(kernel.name) + ": a parameter is too large");
      memcpy(slots[i].bytes, from[i], kernel.parameter_bytes[i]);
    }
  }
};

inline void copy_text(char* to, int room, const std::string& text) {
  if (room > 0) snprintf(to, size_t(room), "%s", text.c_str());
}

}  // namespace fake_driver
