// Tests of the GEMM for compute capability 9.0: values against f64, and bits that depend on a row's own inputs alone.
// The tests of the models that it runs on are in test_hopper_model.cpp.
#include "check.h"

#include "../gemm_sm90.cu"

using check::Buffer;
using check::Random;

namespace {

template <class T> constexpr const char* kSuffix = "";
template <> constexpr const char* kSuffix<bf16> = "bf16";
template <> constexpr const char* kSuffix<f16> = "f16";

size_t up_to(size_t multiple, int x) { return (size_t(x) + multiple - 1) / multiple * multiple; }

TensorMap encode(const void* base, int rows, int columns, uint32_t box_rows, uint32_t box_columns) {
  TensorMap map;
  const char* error = host::encode_tensor_map(&map, const_cast<void*>(base), uint64_t(rows), uint64_t(columns),
                                              uint64_t(columns) * 2, box_rows, box_columns, 2, 128);
  if (error) host::fail(error);
  return map;
}

struct Shape {
  int m, n, k;
};

// What must not change the bits of the output.
struct Setting {
  int grid = 2;
  host::Order order = host::Order::Forward;
  host_async::Timing timing = {};
};

// `rows`: of the tensor maps of x and out.
template <class T>
void run_gemm(const char* kind, const T* x, const T* w, const float* bias, T* out, int rows, Shape shape,
              Setting setting) {
  check::order = setting.order;
  host_async::timing = setting.timing;
  host_async::bank_conflicts = 0;
  check::run(std::string(kind) + kSuffix<T>, {uint32_t(setting.grid)}, {kGemmSm90Threads}, kGemmSm90SharedBytes,
             encode(x, rows, shape.k, kGemmSm90XRows, kGemmSm90XColumns),
             encode(w, shape.n, shape.k, kGemmSm90WRows, kGemmSm90WColumns),
             encode(out, rows, shape.n, kGemmSm90OutRows, kGemmSm90OutColumns), bias, shape.m, shape.n, shape.k);
  EXPECT(host_async::bank_conflicts == 0, "%zu bank conflicts", size_t(host_async::bank_conflicts));
  check::order = host::Order::Forward;
  host_async::timing = {};
}

// Operands without padding after their last rows.
template <class T> struct Operands {
  Shape shape;
  Buffer<T> x, w;
  Buffer<float> bias;

  Operands(uint64_t seed, Shape shape) : shape(shape) {
    Random random(seed);
    x = check::random_buffer<T>(random, size_t(shape.m) * shape.k);
    w = check::random_buffer<T>(random, size_t(shape.n) * shape.k, 1.f / std::sqrt(float(shape.k)));
    bias = Buffer<float>(random.normals(size_t(shape.n)));
  }

  Buffer<T> run(const char* kind, bool with_bias, Setting setting) const {
    Buffer<T> out(size_t(shape.m) * shape.n);
    run_gemm<T>(kind, x.data(), w.data(), with_bias ? bias.data() : nullptr, out.data(), shape.m, shape, setting);
    return out;
  }

  __attribute__((no_sanitize("address", "undefined")))  // for speed
  std::vector<double> expected(bool with_gelu, bool with_bias) const {
    std::vector<float> a(x.size()), b(w.size());
    for (size_t i = 0; i < a.size(); i++) a[i] = x.at(i);
    for (size_t i = 0; i < b.size(); i++) b[i] = w.at(i);
    std::vector<double> all;
    for (int row = 0; row < shape.m; row++) {
      for (int column = 0; column < shape.n; column++) {
        const float *from_x = &a[size_t(row) * shape.k], *from_w = &b[size_t(column) * shape.k];
        double sums[4] = {};
        for (int i = 0; i < shape.k; i++) sums[i % 4] += double(from_x[i]) * double(from_w[i]);
        double sum = sums[0] + sums[1] + sums[2] + sums[3] + (with_bias ? double(bias[size_t(column)]) : 0.);
        all.push_back(with_gelu ? sum * .5 * std::erfc(-sum * std::sqrt(.5)) : sum);
      }
    }
    return all;
  }
};

template <class T> void expect_values(uint64_t seed, Shape shape, bool with_gelu, bool with_bias, Setting setting) {
  Operands<T> operands(seed, shape);
  Buffer<T> out = operands.run(with_gelu ? "gemm_gelu_sm90_" : "gemm_sm90_", with_bias, setting);
  EXPECT_CLOSE(out, operands.expected(with_gelu, with_bias), check::kRounding<T>, "%s %d x %d x %d, %d blocks%s%s",
               kSuffix<T>, shape.m, shape.n, shape.k, setting.grid, with_gelu ? ", gelu" : "",
               with_bias ? ", bias" : "");
}

constexpr host_async::Timing kEarly = {false, false, false};

}  // namespace

TEST(values_of_each_kernel) {
  const Setting forward, early_reverse{4, host::Order::Reverse, kEarly}, shuffled{2, host::Order::Shuffled, {}};
  expect_values<bf16>(1, {264, 264, 520}, false, true, forward);
  expect_values<f16>(2, {140, 272, 456}, false, false, early_reverse);
  expect_values<bf16>(3, {70, 320, 456}, true, true, shuffled);
  expect_values<f16>(4, {200, 136, 520}, true, false, forward);
}

TEST(values_at_the_smallest_shapes) {
  Setting forward, shuffled{4, host::Order::Shuffled, {}};
  expect_values<bf16>(11, {1, 8, 8}, false, true, forward);
  expect_values<f16>(12, {1, 8, 8}, true, true, shuffled);
  expect_values<bf16>(13, {20, 1032, 64}, true, true, forward);
  expect_values<bf16>(14, {129, 8, 72}, false, false, shuffled);
  expect_values<f16>(15, {257, 16, 128}, false, true, shuffled);
}

TEST(values_at_random_shapes) {
  Random random(21);
  for (uint64_t i = 0; i < 6; i++) {
    Shape shape{random.between(1, 520), 8 * random.between(1, 75), 8 * random.between(1, 87)};
    Setting setting{2 * random.between(1, 3), host::Order(random.between(0, 2)), {}};
    setting.timing = {random.coin(), random.coin(), random.coin()};
    bool with_gelu = random.coin(), with_bias = random.coin();
    if (i % 2)
      expect_values<bf16>(30 + i, shape, with_gelu, with_bias, setting);
    else
      expect_values<f16>(30 + i, shape, with_gelu, with_bias, setting);
  }
}

// Two bands of tiles; the second one is not full.
TEST(values_of_many_tile_rows) {
  expect_values<bf16>(41, {256 * 9 + 100, 264, 8}, false, true, {6, host::Order::Forward, {}});
}

TEST(same_bits_whatever_the_schedule) {
  // Four tiles with 8 stages each; those of the last row and column lie partly outside the output.
  Operands<bf16> operands(51, {300, 264, 456});
  using host::Order;
  std::vector<unsigned char> first;
  const Setting settings[] = {
      {2, Order::Forward, {true, true, true}},
      {2, Order::Reverse, {true, true, true}},
      {2, Order::Shuffled, {true, true, true}},
      {2, Order::Shuffled, kEarly},
      {4, Order::Forward, kEarly},
      {4, Order::Shuffled, {true, false, false}},
      {4, Order::Reverse, {false, true, true}},
      {6, Order::Shuffled, {false, false, true}},
      {10, Order::Reverse, {true, true, false}},
  };
  for (const Setting& setting : settings) {
    std::vector<unsigned char> bytes = operands.run("gemm_gelu_sm90_", true, setting).bytes();
    if (first.empty()) first = bytes;
    EXPECT(bytes == first, "other bits with %d blocks, order %d, timing %d%d%d", setting.grid, int(setting.order),
           setting.timing.late_loads, setting.timing.late_stores, setting.timing.late_wgmma);
  }
}

TEST(same_bits_of_a_row_wherever_it_is) {
  Operands<f16> operands(61, {300, 72, 520});
  auto [m, n, k] = operands.shape;
  Buffer<f16> all = operands.run("gemm_sm90_", true, {});
  const struct {
    int first, count;
  } parts[] = {{0, 1}, {17, 1}, {299, 1}, {100, 20}, {43, 128}, {1, 257}};
  for (auto [first, count] : parts) {
    Buffer<f16> out(size_t(count) * n);
    run_gemm<f16>("gemm_sm90_", operands.x.data() + first * k, operands.w.data(), operands.bias.data(), out.data(),
                  count, {count, n, k}, {4, host::Order::Forward, {}});
    EXPECT(!memcmp(out.data(), all.data() + first * n, out.size() * 2), "rows %d to %d", first, first + count - 1);
  }
}

// The maps of x and out may contain rows beyond m, whose contents are NaN here.
TEST(rows_beyond_m_do_not_matter) {
  Operands<bf16> operands(71, {150, 264, 136});
  auto [m, n, k] = operands.shape;
  Buffer<bf16> exact = operands.run("gemm_sm90_", true, {});
  size_t rows = up_to(256, m);
  Buffer<bf16> x(rows * k), out(rows * n);
  memcpy(x.data(), operands.x.data(), operands.x.size() * 2);
  run_gemm<bf16>("gemm_sm90_", x.data(), operands.w.data(), operands.bias.data(), out.data(), int(rows), operands.shape,
                 {});
  EXPECT(!memcmp(out.data(), exact.data(), exact.size() * 2), "padding changes the bits");
  bool untouched = true;
  for (size_t i = up_to(kGemmSm90OutRows, m) * n; i < out.size(); i++) untouched = untouched && out[i].bits == 0xffff;
  EXPECT(untouched, "rows were written beyond the next multiple of %d", kGemmSm90OutRows);
}

// The identity matrix times w is w, bit by bit: every number of a tile is in its place.
TEST(identity_returns_the_weights) {
  const int k = 136, n = 264;
  Buffer<bf16> x(size_t(k) * k), out(size_t(k) * n);
  for (int i = 0; i < k * k; i++) x[size_t(i)] = from_f32<bf16>(i / k == i % k ? 1.f : 0.f);
  Random random(81);
  Buffer<bf16> w = check::random_buffer<bf16>(random, size_t(n) * k);
  run_gemm<bf16>("gemm_sm90_", x.data(), w.data(), nullptr, out.data(), k, {k, n, k}, {});
  int wrong = 0;
  for (int row = 0; row < k; row++) {
    for (int column = 0; column < n; column++) {
      wrong += out[size_t(row) * n + column].bits != w[size_t(column) * k + row].bits;
    }
  }
  EXPECT(wrong == 0, "%d numbers differ from w", wrong);
}

TEST(gelu_is_the_erf_form) {
  for (uint32_t sign : {0u, 0x80000000u}) {
    for (uint32_t bits = 0x30000000; bits < 0x43000000; bits += 4099) {
      float x = __uint_as_float(bits | sign);
      double expected = double(x) * .5 * std::erfc(-double(x) * std::sqrt(.5));
      double error = std::fabs(double(gelu(x)) - expected);
      if (!EXPECT(error <= 1e-7 + 1e-6 * std::fabs(expected), "gelu(%g) = %g", double(x), double(gelu(x)))) return;
    }
  }
  EXPECT(gelu(1e30f) == 1e30f && gelu(-1e30f) == 0.f && std::isnan(gelu(NAN)), "large numbers and NaN");
}

TEST(grids) {
  EXPECT(gemm_sm90_grid(132, 1, 8) == 2, "one tile");
  EXPECT(gemm_sm90_grid(132, 16384, 10240) == 132, "more tiles than blocks");
  EXPECT(gemm_sm90_grid(133, 16384, 10240) == 132, "an even number");
  EXPECT(gemm_sm90_grid(132, 257, 512) == 8, "%d", gemm_sm90_grid(132, 257, 512));
}
