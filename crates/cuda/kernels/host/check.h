// Helpers for the C++ tests of the kernels. A test file includes this first, then the kernels it tests, and is a
// program of its own: `TEST(name) { ... EXPECT(condition, "format", ...); }`.
#pragma once
#define HOST_SHIM_MAIN
#include "../common.cuh"

#include <chrono>
#include <cstdarg>

namespace check {

// ---- Tests ----

struct Test {
  const char* name;
  void (*body)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

inline bool add(const char* name, void (*body)()) {
  tests().push_back({name, body});
  return true;
}

// Failed expectations of the running test.
inline int failures = 0;

__attribute__((format(printf, 4, 5))) inline bool expect(bool holds, const char* file, int line, const char* format,
                                                         ...) {
  if (holds) return true;
  if (++failures <= 10) {
    printf("  %s:%d: ", file, line);
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
  }
  return false;
}

#define TEST(name)                                                           \
  static void name();                                                        \
  static const bool name##_added [[maybe_unused]] = check::add(#name, name); \
  static void name()

// The message is a printf format with its arguments.
#define EXPECT(condition, ...) check::expect((condition), __FILE__, __LINE__, __VA_ARGS__)

// The relative error of `actual` (a Buffer or a vector) to the doubles `expected` is at most `bound`.
#define EXPECT_CLOSE(actual, expected, bound, format, ...)                                                      \
  do {                                                                                                          \
    double error_ = check::relative_error((actual), (expected));                                                \
    EXPECT(error_ <= (bound), "relative error %.3g above %.3g: " format, error_, double(bound), ##__VA_ARGS__); \
  } while (0)

// ---- Random numbers ----

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 0x1234567) {}
  uint64_t bits() {
    uint64_t x = state_ += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
  // In [0, 1).
  double uniform() { return double(bits() >> 11) * 0x1p-53; }
  // In [low, high], both included.
  int between(int low, int high) { return low + int(bits() % uint64_t(high - low + 1)); }
  bool coin() { return bits() & 1; }
  // Mean 0, standard deviation 1 (near enough to normal).
  float normal() { return float((uniform() + uniform() + uniform() + uniform() - 2.) * 1.7320508); }
  std::vector<float> normals(size_t count, float scale = 1.f, float offset = 0.f) {
    std::vector<float> all(count);
    for (float& x : all) x = offset + scale * normal();
    return all;
  }

 private:
  uint64_t state_;
};

// ---- Memory ----

// Device memory: 256-byte aligned, filled with 0xff (NaN in every number type), guard zones on both sides.
// AddressSanitizer finds reads and writes in the guard zones; without it, `guards_intact` finds the writes.
template <class T>
class Buffer {
 public:
  explicit Buffer(size_t count = 0) : count_(count) {
    size_t bytes = count * sizeof(T);
    base_ =
        static_cast<unsigned char*>(aligned_alloc(kGuard, kGuard + (bytes + kGuard - 1) / kGuard * kGuard + kGuard));
    total_ = kGuard + (bytes + kGuard - 1) / kGuard * kGuard + kGuard;
    memset(base_, 0xa5, total_);
    memset(base_ + kGuard, 0xff, bytes);
    poison();
  }
  // Holds these values and has room for `room` of them: the rest is poisoned.
  explicit Buffer(const std::vector<T>& values, size_t room = 0) : Buffer(std::max(values.size(), room)) {
    if (!values.empty()) memcpy(data(), values.data(), values.size() * sizeof(T));
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer(Buffer&& from) noexcept : base_(from.base_), total_(from.total_), count_(from.count_) { from.base_ = nullptr; }
  Buffer& operator=(Buffer&& from) noexcept {
    std::swap(base_, from.base_);
    std::swap(total_, from.total_);
    std::swap(count_, from.count_);
    return *this;
  }
  ~Buffer() {
    if (!base_) return;
    unpoison();
    if (!guards_hold()) EXPECT(false, "a kernel wrote outside of a buffer of %zu bytes", count_ * sizeof(T));
    free(base_);
  }

  T* data() { return reinterpret_cast<T*>(base_ + kGuard); }
  const T* data() const { return reinterpret_cast<const T*>(base_ + kGuard); }
  size_t size() const { return count_; }
  T& operator[](size_t i) { return data()[i]; }
  const T& operator[](size_t i) const { return data()[i]; }
  // As f32.
  float at(size_t i) const { return to_f32(data()[i]); }
  void fill_poison() { memset(data(), 0xff, count_ * sizeof(T)); }

  // The numbers, byte by byte.
  std::vector<unsigned char> bytes() const {
    auto* first = reinterpret_cast<const unsigned char*>(data());
    return std::vector<unsigned char>(first, first + count_ * sizeof(T));
  }
  void set_bytes(const std::vector<unsigned char>& from) {
    if (!from.empty()) memcpy(static_cast<void*>(data()), from.data(), from.size());
  }

  // No byte of the guard zones has changed.
  bool guards_intact() {
    unpoison();
    bool intact = guards_hold();
    poison();
    return intact;
  }

 private:
  static constexpr size_t kGuard = 256;
  unsigned char* base_ = nullptr;
  size_t total_ = 0, count_ = 0;

  bool guards_hold() const {
    size_t end = kGuard + count_ * sizeof(T);
    for (size_t i = 0; i < kGuard; i++)
      if (base_[i] != 0xa5) return false;
    for (size_t i = end; i < total_; i++)
      if (base_[i] != 0xa5) return false;
    return true;
  }
  void poison() {
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(base_, kGuard);
    size_t end = kGuard + count_ * sizeof(T);
    __asan_poison_memory_region(base_ + end, total_ - end);
#endif
  }
  void unpoison() {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(base_, total_);
#endif
  }
};

// These f32 numbers, rounded to T; room for `room` of them.
template <class T>
Buffer<T> rounded(const std::vector<float>& values, size_t room = 0) {
  Buffer<T> buffer(std::max(values.size(), room));
  for (size_t i = 0; i < values.size(); i++) buffer[i] = from_f32<T>(values[i]);
  return buffer;
}

// Random numbers of type T: standard deviation `scale` about `offset`.
template <class T>
Buffer<T> random_buffer(Random& random, size_t count, float scale = 1.f, float offset = 0.f, size_t room = 0) {
  return rounded<T>(random.normals(count, scale, offset), room);
}

// The largest relative error of one rounding to T, with a little room for f32 arithmetic.
template <class T>
constexpr double kRounding = 1e-5;
template <>
inline constexpr double kRounding<bf16> = 4e-3;
template <>
inline constexpr double kRounding<f16> = 6e-4;

inline double as_double(float x) { return x; }
inline double as_double(double x) { return x; }
inline double as_double(bf16 x) { return to_f32(x); }
inline double as_double(f16 x) { return to_f32(x); }

// |actual - expected| / |expected| over the first expected.size() numbers; infinite when one of them is no number.
template <class Numbers>
double relative_error(const Numbers& actual, const std::vector<double>& expected) {
  if (actual.size() < expected.size()) return INFINITY;
  double error = 0, size = 0;
  for (size_t i = 0; i < expected.size(); i++) {
    double x = as_double(actual[i]);
    if (!std::isfinite(x)) return INFINITY;
    error += (x - expected[i]) * (x - expected[i]);
    size += expected[i] * expected[i];
  }
  return size > 0 ? std::sqrt(error / size) : std::sqrt(error);
}

// ---- Launches ----

// The order of threads that `run` uses.
inline host::Order order = host::Order::Forward;

// Runs the kernel of that name. The parameters must have exactly the sizes of the kernel's own.
template <class... A>
void run(const std::string& name, host::Dim3 grid, host::Dim3 block, size_t shared_bytes, A... parameters) {
  const host::Kernel* kernel = host::find(name);
  if (!kernel) host::fail("no kernel " + name);
  if (kernel->parameter_bytes != std::vector<size_t>{sizeof(A)...}) host::fail(name + ": other parameters than given");
  void* pointers[] = {static_cast<void*>(&parameters)..., nullptr};
  host::run(*kernel, grid, block, shared_bytes, pointers, order, 7);
}

// Runs `body` with three orders of the threads and expects equal bits in all of `buffers`, which start each time as
// they are now.
template <class... B>
void same_bits_in_every_order(const char* what, const std::function<void()>& body, B&... buffers) {
  std::vector<std::vector<unsigned char>> before{buffers.bytes()...}, first;
  for (host::Order now : {host::Order::Forward, host::Order::Reverse, host::Order::Shuffled}) {
    size_t i = 0;
    (buffers.set_bytes(before[i++]), ...);
    order = now;
    body();
    order = host::Order::Forward;
    std::vector<std::vector<unsigned char>> after{buffers.bytes()...};
    if (first.empty()) first = after;
    for (size_t buffer = 0; buffer < after.size(); buffer++) {
      EXPECT(after[buffer] == first[buffer], "%s: buffer %zu depends on the order of the threads (%d)", what, buffer,
             int(now));
    }
  }
}

}  // namespace check

// Runs the tests whose names contain the first argument, or all of them.
int main(int count, char** arguments) {
  int passed = 0, failed = 0;
  for (const check::Test& test : check::tests()) {
    if (count > 1 && !strstr(test.name, arguments[1])) continue;
    check::failures = 0;
    auto start = std::chrono::steady_clock::now();
    test.body();
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    printf("%s %s (%.2f s)\n", check::failures ? "FAILED" : "passed", test.name, seconds);
    fflush(stdout);
    (check::failures ? failed : passed)++;
  }
  printf("%d passed, %d failed\n", passed, failed);
  return failed || !passed;
}
