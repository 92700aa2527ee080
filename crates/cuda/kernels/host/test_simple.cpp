// Tests of the kernels without tensor cores: norms, rows, and f32 products and attention, against references in f64.
#include "check.h"

#include "../attention_f32.cu"
#include "../gemm_f32.cu"
#include "../norm.cu"
#include "../rows.cu"

using check::Buffer;
using check::kRounding;
using check::Random;
using check::random_buffer;
using check::rounded;
using check::run;
using std::string;
using std::vector;

template <class T>
constexpr const char* kSuffix = nullptr;
template <>
constexpr const char* kSuffix<bf16> = "bf16";
template <>
constexpr const char* kSuffix<f16> = "f16";
template <>
constexpr const char* kSuffix<f32> = "f32";

// `family`_`type`, with the type's name.
template <class T>
static string named(const string& family) {
  return family + "_" + kSuffix<T>;
}

static host::Dim3 grid(uint32_t x, uint32_t y = 1) { return {x, y, 1}; }
static host::Dim3 threads(uint32_t x) { return {x, 1, 1}; }
// A warp a row.
static host::Dim3 row_grid(int rows) { return grid((rows + 3) / 4); }

static const float* or_null(bool present, const Buffer<float>& buffer) { return present ? buffer.data() : nullptr; }

// ---- Norms ----

struct NormCase {
  int hidden;
  float eps = 1e-5f;
  Buffer<float> weight, bias;
  NormCase(Random& random, int hidden)
      : hidden(hidden), weight(random.normals(hidden, 0.3f, 1.f)), bias(random.normals(hidden)) {}

  // What a row becomes.
  vector<double> apply(const vector<double>& row, int placement) const {
    if (placement == 2) return row;
    double mean = 0, squares = 0;
    for (double x : row) mean += x / hidden;
    for (double x : row) squares += (x - mean) * (x - mean) / hidden;
    vector<double> normed(hidden);
    for (int i = 0; i < hidden; i++) normed[i] = (row[i] - mean) / std::sqrt(squares + eps) * weight[i] + bias[i];
    return normed;
  }
};

// Rows `sum` [rows, hidden] through the norm: `states` and `x` are what they should be.
template <class T>
static void expect_norm(const NormCase& norm, const vector<double>& sum, int placement, const Buffer<float>& states,
                        const Buffer<T>* x, const char* what) {
  vector<double> expected;
  for (size_t at = 0; at < sum.size(); at += norm.hidden) {
    vector<double> row = norm.apply({sum.begin() + at, sum.begin() + at + norm.hidden}, placement);
    expected.insert(expected.end(), row.begin(), row.end());
  }
  EXPECT_CLOSE(states, placement == 1 ? expected : sum, 2e-6, "states of %s, hidden %d, placement %d", what,
               norm.hidden, placement);
  if (x) EXPECT_CLOSE(*x, expected, kRounding<T>, "x of %s, hidden %d, placement %d", what, norm.hidden, placement);
}

template <class T>
static void check_add_norm(Random& random, int w, int rows, int hidden, int placement, bool with_y, bool with_bias,
                           bool with_x, bool every_order) {
  NormCase norm(random, hidden);
  // Far from zero: the variance must not come from a difference of large sums.
  auto states = random_buffer<float>(random, size_t(rows) * hidden, 1.f, 30.f);
  auto y = random_buffer<T>(random, size_t(rows) * hidden);
  auto bias = random_buffer<float>(random, hidden);
  Buffer<T> x(with_x ? size_t(rows) * hidden : 0);
  vector<double> sum;
  for (size_t i = 0; i < states.size(); i++) {
    sum.push_back(double(states[i]) + (with_y ? y.at(i) : 0) + (with_bias ? bias[i % hidden] : 0));
  }
  auto launch = [&] {
    run(named<T>("add_norm") + "_" + std::to_string(w), row_grid(rows), threads(128), 0,
        with_y ? (const T*)y.data() : nullptr, or_null(with_bias, bias), (const float*)norm.weight.data(),
        (const float*)norm.bias.data(), norm.eps, placement, states.data(), with_x ? x.data() : nullptr, rows, hidden);
  };
  if (every_order)
    check::same_bits_in_every_order("add_norm", launch, states, x);
  else
    launch();
  expect_norm<T>(norm, sum, placement, states, with_x ? &x : nullptr, "add_norm");
}

template <class T>
static void check_add_norm_sizes(uint64_t seed) {
  Random random(seed);
  const int sizes[] = {4, 8, 12, 20, 32, 64};
  int before = 0;
  for (int w : sizes) {
    // The smallest and largest row of each size, and one between that fills no warp.
    for (int hidden : {before + 8, (before + 128 * w) / 2 / 8 * 8 + 8, 128 * w}) {
      check_add_norm<T>(random, w, random.between(1, 3), hidden, random.between(0, 2), random.coin(), random.coin(),
                        random.uniform() < 0.8, false);
    }
    before = 128 * w;
  }
  for (int choice = 0; choice < 24; choice++) {
    check_add_norm<T>(random, 4, random.between(1, 9), 8 * random.between(1, 64), choice % 3, choice / 3 % 2,
                      choice / 6 % 2, choice / 12 % 2, choice % 5 == 0);
  }
}
TEST(add_norm_bf16_is_residual_sum_and_norm) { check_add_norm_sizes<bf16>(1); }
TEST(add_norm_f16_is_residual_sum_and_norm) { check_add_norm_sizes<f16>(2); }
TEST(add_norm_f32_is_residual_sum_and_norm) { check_add_norm_sizes<f32>(3); }

template <class T>
static void check_embed(uint64_t seed) {
  Random random(seed);
  for (int hidden : {8, 128, 312, 768, 1000, 8192}) {
    int tokens = random.between(1, 7), words = 11, positions = 5, types = 2, placement = random.between(0, 2);
    bool with_types = random.coin();
    NormCase norm(random, hidden);
    auto word_table = random_buffer<T>(random, size_t(words) * hidden);
    auto position_table = random_buffer<T>(random, size_t(positions) * hidden);
    auto type_table = random_buffer<T>(random, size_t(types) * hidden);
    Buffer<uint32_t> id(tokens), position(tokens), type(with_types ? tokens : 0);
    vector<double> sum;
    for (int t = 0; t < tokens; t++) {
      id[t] = random.between(0, words - 1);
      position[t] = random.between(0, positions - 1);
      if (with_types) type[t] = random.between(0, types - 1);
      for (int i = 0; i < hidden; i++) {
        sum.push_back(double(word_table.at(id[t] * hidden + i)) + position_table.at(position[t] * hidden + i) +
                      type_table.at((with_types ? type[t] : 0) * hidden + i));
      }
    }
    Buffer<float> states(size_t(tokens) * hidden);
    Buffer<T> x(size_t(tokens) * hidden);
    auto launch = [&] {
      run(named<T>("embed"), row_grid(tokens), threads(128), 0, (const T*)word_table.data(),
          (const T*)position_table.data(), (const T*)type_table.data(), (const uint32_t*)id.data(),
          (const uint32_t*)position.data(), with_types ? (const uint32_t*)type.data() : nullptr,
          (const float*)norm.weight.data(), (const float*)norm.bias.data(), norm.eps, placement, states.data(),
          x.data(), tokens, hidden);
    };
    if (hidden == 312)
      check::same_bits_in_every_order("embed", launch, states, x);
    else
      launch();
    expect_norm<T>(norm, sum, placement, states, &x, "embed");
  }
}
TEST(embed_bf16_sums_three_tables) { check_embed<bf16>(4); }
TEST(embed_f16_sums_three_tables) { check_embed<f16>(5); }
TEST(embed_f32_sums_three_tables) { check_embed<f32>(6); }

template <class T>
static void check_norm_rows(uint64_t seed) {
  Random random(seed);
  for (int hidden : {8, 264, 1024, 2560}) {
    int rows = random.between(1, 6);
    NormCase norm(random, hidden);
    auto y = random_buffer<T>(random, size_t(rows) * hidden, 2.f);
    Buffer<T> x(y.size());
    run(named<T>("norm_rows"), row_grid(rows), threads(128), 0, (const T*)y.data(), (const float*)norm.weight.data(),
        (const float*)norm.bias.data(), norm.eps, x.data(), rows, hidden);
    vector<double> expected;
    for (int row = 0; row < rows; row++) {
      vector<double> numbers;
      for (int i = 0; i < hidden; i++) numbers.push_back(y.at(size_t(row) * hidden + i));
      for (double n : norm.apply(numbers, 0)) expected.push_back(n);
    }
    EXPECT_CLOSE(x, expected, kRounding<T>, "norm_rows, hidden %d", hidden);
  }
}
TEST(norm_rows_norms_each_row) {
  check_norm_rows<bf16>(7);
  check_norm_rows<f16>(8);
  check_norm_rows<f32>(9);
}

TEST(a_row_has_the_same_bits_alone_and_in_a_batch) {
  Random random(10);
  int rows = 9, hidden = 520;
  NormCase norm(random, hidden);
  auto states = random_buffer<float>(random, rows * hidden), alone = random_buffer<float>(random, hidden);
  auto y = random_buffer<bf16>(random, rows * hidden);
  Buffer<bf16> x(rows * hidden), x_alone(hidden);
  int row = 6;
  memcpy(alone.data(), states.data() + row * hidden, hidden * 4);
  auto launch = [&](const bf16* y, float* states, bf16* x, int rows) {
    run("add_norm_bf16_8", row_grid(rows), threads(128), 0, y, (const float*)nullptr, (const float*)norm.weight.data(),
        (const float*)norm.bias.data(), norm.eps, 1, states, x, rows, hidden);
  };
  launch(y.data(), states.data(), x.data(), rows);
  launch(y.data() + row * hidden, alone.data(), x_alone.data(), 1);
  EXPECT(!memcmp(alone.data(), states.data() + row * hidden, hidden * 4), "the states differ");
  EXPECT(!memcmp(x_alone.data(), x.data() + row * hidden, hidden * 2), "x differs");
}

// ---- Rows ----

// Where each sequence starts, and the end of the last.
static Buffer<uint32_t> borders(const vector<int>& lengths) {
  vector<uint32_t> all{0};
  for (int length : lengths) all.push_back(all.back() + length);
  return Buffer<uint32_t>(all);
}

TEST(pool_makes_one_vector_of_each_sequence) {
  Random random(11);
  for (int hidden : {8, 72, 384}) {
    vector<int> lengths = hidden == 72 ? vector<int>{1, 512, 2} : vector<int>{3, 1, 17, random.between(2, 40)};
    auto cu_seqlens = borders(lengths);
    int sequences = int(lengths.size());
    auto states = random_buffer<float>(random, size_t(cu_seqlens[sequences]) * hidden);
    for (int mode = 0; mode < 6; mode++) {
      for (int normalize = 0; normalize < 2; normalize++) {
        int dim = mode % 2 ? random.between(1, hidden) : hidden;
        vector<double> expected;
        for (int s = 0; s < sequences; s++) {
          vector<double> vector_(dim);
          int length = lengths[s];
          for (int c = 0; c < dim; c++) {
            auto x = [&](int t) { return double(states[(size_t(cu_seqlens[s]) + t) * hidden + c]); };
            double sum = 0, weighted = 0, most = -INFINITY;
            for (int t = 0; t < length; t++) sum += x(t), weighted += (t + 1) * x(t), most = std::max(most, x(t));
            double by_mode[] = {
                x(0),         sum / length, most, sum / std::sqrt(length), weighted / (0.5 * length * (length + 1)),
                x(length - 1)};
            vector_[c] = by_mode[mode];
          }
          double squares = 0;
          for (double x : vector_) squares += x * x;
          for (double x : vector_) expected.push_back(normalize ? x / std::sqrt(squares) : x);
        }
        Buffer<float> out(expected.size());
        auto launch = [&] {
          run("pool", grid(sequences), threads(hidden == 72 ? 32 : 96), 0, (const float*)states.data(),
              (const uint32_t*)cu_seqlens.data(), out.data(), hidden, dim, mode, normalize);
        };
        if (hidden == 384)
          check::same_bits_in_every_order("pool", launch, out);
        else
          launch();
        EXPECT_CLOSE(out, expected, 2e-6, "mode %d, hidden %d, dim %d, normalize %d", mode, hidden, dim, normalize);
      }
    }
  }
}

TEST(pool_does_not_depend_on_the_number_of_threads) {
  Random random(12);
  auto cu_seqlens = borders({5, 9});
  int hidden = 264;
  auto states = random_buffer<float>(random, 14 * hidden);
  Buffer<float> few(2 * hidden), many(2 * hidden);
  for (auto* out : {&few, &many}) {
    run("pool", grid(2), threads(out == &few ? 32 : 512), 0, (const float*)states.data(),
        (const uint32_t*)cu_seqlens.data(), out->data(), hidden, hidden, 1, 1);
  }
  EXPECT(few.bytes() == many.bytes(), "the bits differ");
}

TEST(pool_keeps_the_zero_vector) {
  auto cu_seqlens = borders({2});
  Buffer<float> states(vector<float>(16, 0.f)), out(8);
  run("pool", grid(1), threads(32), 0, (const float*)states.data(), (const uint32_t*)cu_seqlens.data(), out.data(), 8,
      8, 1, 1);
  for (size_t i = 0; i < 8; i++) EXPECT(out[i] == 0.f, "column %zu is %g", i, out[i]);
}

template <class T>
static void check_gather(const string& kernel, uint64_t seed) {
  Random random(seed);
  for (int hidden : {8, 136, 1024}) {
    int count = random.between(1, 9);
    auto states = random_buffer<float>(random, 13 * hidden);
    Buffer<uint32_t> rows(count);
    for (int i = 0; i < count; i++) rows[i] = random.between(0, 12);
    Buffer<T> x(size_t(count) * hidden);
    run(kernel, row_grid(count), threads(128), 0, (const float*)states.data(), (const uint32_t*)rows.data(), x.data(),
        count, hidden);
    bool equal = true;
    for (size_t i = 0; i < x.size(); i++) {
      T expected = from_f32<T>(states[rows[i / hidden] * hidden + i % hidden]);
      equal &= !memcmp(&x[i], &expected, sizeof(T));
    }
    EXPECT(equal, "%s, hidden %d", kernel.c_str(), hidden);
  }
}
TEST(gather_rows_copies_the_rows_that_are_listed) {
  check_gather<bf16>("gather_rows_bf16", 13);
  check_gather<f16>("gather_rows_f16", 14);
  check_gather<f32>("gather_rows_f32", 15);
  check_gather<f32>("gather_rows_out_f32", 16);
}

TEST(gelu_is_its_erf_form) {
  for (int i = -40000; i <= 40000; i++) {
    float x = i < -30000 || i > 30000 ? i * 1e30f : i * 5e-4f;
    double expected = 0.5 * x * std::erfc(-x * std::sqrt(0.5)), error = std::fabs(gelu(x) - expected);
    EXPECT(error <= 1.5e-7 * std::max(1., std::fabs(double(x))), "gelu(%g) is %g, not %g", x, gelu(x), expected);
    if (x > -3) EXPECT(error <= 1e-5 * std::fabs(expected) + 1e-9, "gelu(%g) is %.9g, not %.9g", x, gelu(x), expected);
  }
  EXPECT(std::isnan(gelu(NAN)), "gelu of NaN is %g", gelu(NAN));
}

static double activate(double x, int activation) {
  if (activation == 1) return 0.5 * x * (1 + std::erf(x * std::sqrt(0.5)));
  return activation == 2 ? std::tanh(x) : x;
}

// x wT + bias, of the numbers as the kernel gets them.
template <class X, class W>
static vector<double> product(const Buffer<X>& x, const Buffer<W>& w, const Buffer<float>* bias, int m, int n, int k) {
  vector<double> out(size_t(m) * n);
  for (int i = 0; i < m; i++) {
    for (int j = 0; j < n; j++) {
      double sum = bias ? (*bias)[j] : 0;
      for (int l = 0; l < k; l++) sum += double(x.at(size_t(i) * k + l)) * w.at(size_t(j) * k + l);
      out[size_t(i) * n + j] = sum;
    }
  }
  return out;
}

template <class T>
static void check_linear(uint64_t seed) {
  Random random(seed);
  for (int k : {8, 128, 520, 1024}) {
    int m = random.between(1, 6), n = random.between(1, 30), activation = random.between(0, 2);
    bool with_bias = random.coin();
    auto x = random_buffer<float>(random, size_t(m) * k), bias = random_buffer<float>(random, n);
    auto w = random_buffer<T>(random, size_t(n) * k, 1.f / std::sqrt(float(k)));
    Buffer<float> out(size_t(m) * n), split(size_t(m) * n);
    auto launch = [&](Buffer<float>& out, int columns) {
      run(named<T>("linear"), grid((m + 3) / 4, columns), threads(128), 0, (const float*)x.data(), (const T*)w.data(),
          or_null(with_bias, bias), out.data(), m, n, k, activation);
    };
    if (k == 128)
      check::same_bits_in_every_order("linear", [&] { launch(out, 1); }, out);
    else
      launch(out, 1);
    vector<double> expected = product(x, w, with_bias ? &bias : nullptr, m, n, k);
    for (double& y : expected) y = activate(y, activation);
    EXPECT_CLOSE(out, expected, 3e-6, "m %d, n %d, k %d, activation %d", m, n, k, activation);
    launch(split, 3);
    EXPECT(split.bytes() == out.bytes(), "the bits depend on the grid: m %d, n %d, k %d", m, n, k);
  }
}
TEST(linear_is_a_product_with_bias_and_activation) {
  check_linear<bf16>(17);
  check_linear<f16>(18);
  check_linear<f32>(19);
}

template <class T>
static void check_fill(uint64_t count) {
  uint64_t seed = 0xcbf29ce484222325u, first = 77;
  Buffer<T> out(count);
  run(named<T>("fill"), grid(2), threads(64), 0, out.data(), seed, first, count, 0.5f, 0.1f);
  for (uint64_t i = 0; i < count; i++) {
    uint64_t x = seed + first + i + 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    volatile float scaled = 0.1f * (float((x ^ (x >> 31)) >> 40) / float(1 << 23) - 1.f);
    T expected = from_f32<T>(0.5f + scaled);
    EXPECT(!memcmp(&out[i], &expected, sizeof(T)), "number %d of %d", int(i), int(count));
  }
}
TEST(fill_writes_the_synthetic_numbers) {
  for (uint64_t count : {1, 4, 511, 1030}) {
    check_fill<bf16>(count);
    check_fill<f16>(count);
    check_fill<f32>(count);
  }
}

TEST(fill_agrees_with_the_encoder) {
  // The first numbers of `splitmix64` from 0 on, as published with it.
  EXPECT(rows::splitmix64(0) == 0xe220a8397b1dcdafu, "of 0");
  EXPECT(rows::splitmix64(0x9e3779b97f4a7c15u) == 0x6e789e6aa1b965f4u, "of its increment");
}

// ---- Products in f32 ----

TEST(gemm_f32_is_a_product_with_bias) {
  Random random(20);
  struct Shape {
    int m, n, k;
  };
  for (Shape shape : {Shape{1, 1, 4}, Shape{64, 64, 16}, Shape{65, 63, 20}, Shape{7, 130, 100}, Shape{130, 8, 36}}) {
    auto [m, n, k] = shape;
    auto x = random_buffer<float>(random, size_t(m) * k), w = random_buffer<float>(random, size_t(n) * k);
    auto bias = random_buffer<float>(random, n);
    for (bool with_gelu : {false, true}) {
      bool with_bias = random.coin();
      Buffer<float> out(size_t(m) * n);
      auto launch = [&] {
        run(with_gelu ? "gemm_gelu_f32" : "gemm_f32", grid((n + 63) / 64, (m + 63) / 64), threads(kGemmF32Threads),
            kGemmF32SharedBytes, (const float*)x.data(), (const float*)w.data(), or_null(with_bias, bias), out.data(),
            m, n, k);
      };
      check::same_bits_in_every_order("gemm_f32", launch, out);
      vector<double> expected = product(x, w, with_bias ? &bias : nullptr, m, n, k);
      for (double& y : expected) y = activate(y, with_gelu);
      EXPECT_CLOSE(out, expected, 3e-6, "m %d, n %d, k %d, gelu %d", m, n, k, with_gelu);
    }
  }
}

TEST(gemm_f32_gives_a_row_the_same_bits_in_every_batch) {
  Random random(21);
  int m = 70, n = 40, k = 52;
  auto x = random_buffer<float>(random, m * k), w = random_buffer<float>(random, n * k);
  Buffer<float> out(m * n), alone(n);
  auto launch = [&](const float* x, float* out, int m) {
    run("gemm_f32", grid(1, (m + 63) / 64), threads(kGemmF32Threads), kGemmF32SharedBytes, x, (const float*)w.data(),
        (const float*)nullptr, out, m, n, k);
  };
  launch(x.data(), out.data(), m);
  for (int row : {0, 33, 69}) {
    launch(x.data() + row * k, alone.data(), 1);
    EXPECT(!memcmp(alone.data(), out.data() + row * n, n * 4), "row %d", row);
  }
}

// ---- Attention in f32 ----

struct AttentionCase {
  int heads, head_size, causal;
  vector<int> lengths;
};

static vector<double> attention(const Buffer<float>& qkv, const AttentionCase& c, float scale) {
  int width = c.heads * c.head_size, start = 0;
  vector<double> out;
  for (int length : c.lengths) {
    auto at = [&](int part, int row, int head, int d) {
      return double(qkv[size_t(start + row) * 3 * width + part * width + head * c.head_size + d]);
    };
    for (int row = 0; row < length; row++) {
      for (int head = 0; head < c.heads; head++) {
        int keys = c.causal ? row + 1 : length;
        vector<double> weights(keys), sums(c.head_size);
        double most = -INFINITY, total = 0;
        for (int key = 0; key < keys; key++) {
          for (int d = 0; d < c.head_size; d++) weights[key] += scale * at(0, row, head, d) * at(1, key, head, d);
          most = std::max(most, weights[key]);
        }
        for (int key = 0; key < keys; key++) total += weights[key] = std::exp(weights[key] - most);
        for (int key = 0; key < keys; key++) {
          for (int d = 0; d < c.head_size; d++) sums[d] += weights[key] / total * at(2, key, head, d);
        }
        out.insert(out.end(), sums.begin(), sums.end());
      }
    }
    start += length;
  }
  return out;
}

static void run_attention(const AttentionCase& c, const Buffer<float>& qkv, const Buffer<uint32_t>& cu_seqlens,
                          const vector<uint2>& tiles, Buffer<float>& out, float scale) {
  Buffer<uint2> on_device(tiles);
  run("attention_f32", grid(uint32_t(tiles.size()), c.heads), threads(kAttentionF32Threads),
      attention_f32_shared_bytes(c.head_size), (const float*)qkv.data(), (const uint32_t*)cu_seqlens.data(),
      (const uint2*)on_device.data(), out.data(), c.heads, scale, c.causal, c.head_size);
}

TEST(attention_f32_is_softmax_of_scores_times_values) {
  Random random(22);
  AttentionCase cases[] = {
      {1, 32, 0, {1, 2, 63}}, {2, 64, 1, {64, 5, 65}}, {3, 80, 0, {40, 33}}, {1, 128, 1, {100, 31}},
      {2, 3, 0, {7, 70}},     {1, 20, 1, {33, 1}},     {4, 8, 0, {32, 12}},  {1, 16, 1, {260}},
  };
  for (const AttentionCase& c : cases) {
    auto cu_seqlens = borders(c.lengths);
    size_t tokens = cu_seqlens[c.lengths.size()], width = size_t(c.heads) * c.head_size;
    // Scores of several units: the running maximum has to move.
    auto qkv = random_buffer<float>(random, tokens * 3 * width, 2.f);
    vector<uint2> tiles;
    for (uint32_t s = 0; s < c.lengths.size(); s++) {
      for (uint32_t first = 0; first < uint32_t(c.lengths[s]); first += 64) tiles.push_back({s, first});
    }
    float scale = 1.f / std::sqrt(float(c.head_size));
    Buffer<float> out(tokens * width);
    auto launch = [&] { run_attention(c, qkv, cu_seqlens, tiles, out, scale); };
    if (tokens * width < 4000)
      check::same_bits_in_every_order("attention_f32", launch, out);
    else
      launch();
    EXPECT_CLOSE(out, attention(qkv, c, scale), 5e-6, "%d heads of %d, causal %d", c.heads, c.head_size, c.causal);
  }
}

TEST(attention_f32_gives_a_row_the_same_bits_in_every_tile_and_batch) {
  Random random(23);
  for (int causal : {0, 1}) {
    AttentionCase batch{1, 32, causal, {9, 90}}, alone{1, 32, causal, {90}};
    auto cu_batch = borders(batch.lengths), cu_alone = borders(alone.lengths);
    auto qkv = random_buffer<float>(random, 99 * 96);
    Buffer<float> qkv_alone(90 * 96), out(99 * 32), out_alone(90 * 32);
    memcpy(qkv_alone.data(), qkv.data() + 9 * 96, 90 * 96 * 4);
    run_attention(batch, qkv, cu_batch, {{0, 0}, {1, 0}, {1, 64}}, out, 0.2f);
    // From the last row back to the first, tiles that start anywhere.
    run_attention(alone, qkv_alone, cu_alone, {{0, 89}, {0, 70}, {0, 33}, {0, 0}}, out_alone, 0.2f);
    EXPECT(!memcmp(out_alone.data(), out.data() + 9 * 32, 90 * 32 * 4), "causal %d", causal);
  }
}

TEST(attention_f32_writes_only_the_rows_of_its_tile) {
  Random random(24);
  AttentionCase c{1, 32, 1, {40, 20}};
  auto cu_seqlens = borders(c.lengths);
  auto qkv = random_buffer<float>(random, 60 * 96);
  Buffer<float> out(60 * 32);
  run_attention(c, qkv, cu_seqlens, {{0, 39}, {1, 15}}, out, 0.2f);
  for (int row = 0; row < 60; row++) {
    bool written = row == 39 || row >= 55;
    for (int d = 0; d < 32; d++) EXPECT(std::isnan(out[row * 32 + d]) != written, "row %d, column %d", row, d);
  }
}
