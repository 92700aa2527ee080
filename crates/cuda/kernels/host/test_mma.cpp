// Tests of the mma.sync kernels: values against f64, and bits that depend on nothing but a row's own inputs.
#include "check.h"

#include "../attention_mma.cu"
#include "../gemm_mma.cu"

using check::Buffer;
using check::Random;

namespace {

template <class T> constexpr const char* kSuffix = "";
template <> constexpr const char* kSuffix<bf16> = "bf16";
template <> constexpr const char* kSuffix<f16> = "f16";

// `body` gives the same bits in these buffers whenever copies happen and in whatever order threads run. Every wait is
// complete and no read of ldmatrix conflicts with another one.
template <class... B> void expect_same_bits(const char* what, const std::function<void()>& body, B&... buffers) {
  host::bank_conflicts = 0;
  std::vector<std::vector<unsigned char>> before{buffers.bytes()...};
  check::same_bits_in_every_order(what, body, buffers...);
  std::vector<std::vector<unsigned char>> late{buffers.bytes()...};
  size_t i = 0;
  (buffers.set_bytes(before[i++]), ...);
  host::copy_time = host::CopyTime::Early;
  body();
  host::copy_time = host::CopyTime::Late;
  std::vector<std::vector<unsigned char>> early{buffers.bytes()...};
  EXPECT(early == late, "%s: the bits depend on when copies happen", what);
  EXPECT(host::pending_copies() == 0, "%s: %zu copies have not happened at the end", what, host::pending_copies());
  EXPECT(host::bank_conflicts == 0, "%s: %zu bank conflicts", what, size_t(host::bank_conflicts));
}

// ---- GEMM ----

struct Shape {
  int m, n, k;
};

size_t up_to(int multiple, int x) { return size_t(x + multiple - 1) / multiple * multiple; }

// x has room for rows up to the next multiple of 256, which are NaN.
template <class T> struct Operands {
  Shape shape;
  Buffer<T> x, w;
  Buffer<float> bias;

  Operands(Random& random, Shape shape)
      : shape(shape),
        x(check::random_buffer<T>(random, size_t(shape.m) * shape.k, 1.f, 0.f, up_to(256, shape.m) * shape.k)),
        w(check::random_buffer<T>(random, size_t(shape.n) * shape.k, 1.f / std::sqrt(float(shape.k)))),
        bias(random.normals(shape.n)) {}

  template <class Out> void run(const char* kind, Buffer<Out>& out, bool with_bias = true) const {
    run(kind, x.data(), shape.m, w.data(), shape.n, bias.data(), out, with_bias);
  }

  template <class Out>
  void run(const char* kind, const T* x, int m, const T* w, int n, const float* bias, Buffer<Out>& out,
           bool with_bias) const {
    host::Dim3 grid{uint32_t(up_to(kGemmTileRows, m) / kGemmTileRows),
                    uint32_t(up_to(kGemmTileColumns, n) / kGemmTileColumns)};
    check::run(std::string(kind) + kSuffix<T>, grid, {kGemmThreads}, kGemmSharedBytes, x, w, with_bias ? bias : nullptr,
               out.data(), m, n, shape.k);
  }

  std::vector<double> expected(bool gelu, bool with_bias = true) const {
    std::vector<double> all;
    for (int row = 0; row < shape.m; row++) {
      for (int column = 0; column < shape.n; column++) {
        double sum = with_bias ? bias[column] : 0.;
        size_t x_row = size_t(row) * shape.k, w_row = size_t(column) * shape.k;
        for (int i = 0; i < shape.k; i++) sum += double(x.at(x_row + i)) * w.at(w_row + i);
        all.push_back(gelu ? sum * .5 * (1 + std::erf(sum * std::sqrt(.5))) : sum);
      }
    }
    return all;
  }
};

template <class T, class Out>
void expect_gemm(uint64_t seed, const char* kind, bool gelu, Shape shape, bool with_bias) {
  Random random(seed);
  Operands<T> operands(random, shape);
  Buffer<Out> out(size_t(shape.m) * shape.n);
  operands.run(kind, out, with_bias);
  EXPECT_CLOSE(out, operands.expected(gelu, with_bias), check::kRounding<Out>, "%s%s %d x %d x %d", kind, kSuffix<T>,
               shape.m, shape.n, shape.k);
}

TEST(gemm_is_near_the_exact_product) {
  uint64_t seed = 0;
  for (bool with_bias : {true, false}) {
    expect_gemm<bf16, bf16>(++seed, "gemm_", false, {1, 8, 8}, with_bias);
    expect_gemm<f16, f16>(++seed, "gemm_", false, {127, 136, 40}, with_bias);
    expect_gemm<bf16, bf16>(++seed, "gemm_gelu_", true, {20, 152, 96}, with_bias);
    expect_gemm<f16, f16>(++seed, "gemm_gelu_", true, {129, 24, 104}, with_bias);
    expect_gemm<bf16, float>(++seed, "gemm_out_f32_", false, {33, 130, 64}, with_bias);
    expect_gemm<f16, float>(++seed, "gemm_out_f32_", false, {3, 1, 24}, with_bias);
  }
  expect_gemm<bf16, bf16>(++seed, "gemm_", false, {300, 400, 32}, true);
  expect_gemm<f16, f16>(++seed, "gemm_", false, {65, 72, 600}, true);
  expect_gemm<bf16, bf16>(++seed, "gemm_gelu_", true, {2, 256, 376}, true);
  expect_gemm<f16, float>(++seed, "gemm_out_f32_", false, {130, 151, 72}, true);
  expect_gemm<bf16, float>(++seed, "gemm_out_f32_", false, {1, 257, 512}, true);
}

TEST(gemm_of_random_shapes_is_near_the_exact_product) {
  Random random(11);
  for (int i = 0; i < 8; i++) {
    Shape shape{random.between(1, 150), random.between(1, 20) * 8, random.between(1, 25) * 8};
    uint64_t seed = random.bits();
    if (i & 1) expect_gemm<bf16, bf16>(seed, "gemm_gelu_", true, shape, random.coin());
    else expect_gemm<f16, f16>(seed, "gemm_", false, shape, random.coin());
    shape.n -= random.between(0, 7);
    shape.m = random.between(1, 20);
    expect_gemm<bf16, float>(seed, "gemm_out_f32_", false, shape, random.coin());
  }
}

template <class T, class Out> void expect_gemm_order(const char* kind, Shape shape) {
  Random random(21);
  Operands<T> operands(random, shape);
  Buffer<Out> out(size_t(shape.m) * shape.n);
  expect_same_bits(kind, [&] { operands.run(kind, out); }, out);
}

TEST(gemm_does_not_depend_on_the_order_of_threads_or_copies) {
  expect_gemm_order<bf16, bf16>("gemm_", {140, 136, 200});
  expect_gemm_order<f16, f16>("gemm_gelu_", {17, 128, 168});
  expect_gemm_order<bf16, float>("gemm_out_f32_", {70, 133, 40});
}

// A row, and a column, has the same bits wherever it is and whatever else is computed.
template <class T, class Out> void expect_independent_rows(const char* kind) {
  Random random(31);
  Shape shape{290, 136, 72};
  Operands<T> all(random, shape);
  Buffer<Out> whole(size_t(shape.m) * shape.n);
  all.run(kind, whole);
  for (int first : {0, 5, 64, 131, 255, 289}) {
    for (int m : {1, 7}) {
      if (first + m > shape.m) continue;
      Buffer<T> x(up_to(256, m) * shape.k);
      memcpy(static_cast<void*>(x.data()), all.x.data() + first * shape.k, size_t(m) * shape.k * sizeof(T));
      Buffer<Out> part(size_t(m) * shape.n);
      all.run(kind, x.data(), m, all.w.data(), shape.n, all.bias.data(), part, true);
      bool same = !memcmp(part.data(), whole.data() + first * shape.n, part.size() * sizeof(Out));
      EXPECT(same, "%s%s: row %d of %d", kind, kSuffix<T>, first, m);
    }
  }
  Buffer<Out> columns(size_t(shape.m) * 16);
  all.run(kind, all.x.data(), shape.m, all.w.data() + 56 * shape.k, 16, all.bias.data() + 56, columns, true);
  for (int row = 0; row < shape.m; row++) {
    bool same = !memcmp(columns.data() + row * 16, whole.data() + row * shape.n + 56, 16 * sizeof(Out));
    EXPECT(same, "%s%s: columns of row %d", kind, kSuffix<T>, row);
  }
}

TEST(gemm_bits_of_a_row_depend_on_it_alone) {
  expect_independent_rows<bf16, bf16>("gemm_gelu_");
  expect_independent_rows<f16, float>("gemm_out_f32_");
}

// More rows of tiles than a group has, and a last group with fewer.
TEST(gemm_computes_every_tile_of_a_tall_product) {
  expect_gemm<bf16, bf16>(41, "gemm_", false, {17 * 128 + 1, 136, 8}, true);
}

// ---- Attention ----

template <class T> struct Sequences {
  int heads, head_size;
  std::vector<uint32_t> borders{0};
  Buffer<T> qkv;

  Sequences(Random& random, int heads, int head_size, const std::vector<int>& lengths)
      : heads(heads), head_size(head_size) {
    for (int length : lengths) borders.push_back(borders.back() + length);
    qkv = check::random_buffer<T>(random, borders.back() * pitch(), 1.5f);
  }

  size_t pitch() const { return size_t(3) * heads * head_size; }
  int count() const { return int(borders.size()) - 1; }
  int length(int sequence) const { return int(borders[sequence + 1] - borders[sequence]); }
  size_t out_size() const { return size_t(borders.back()) * heads * head_size; }
  float scale() const { return 1.f / std::sqrt(float(head_size)); }

  std::vector<uint2> tiles() const {
    std::vector<uint2> all;
    for (int sequence = 0; sequence < count(); sequence++)
      for (int first = 0; first < length(sequence); first += kAttentionTileRows)
        all.push_back({uint32_t(sequence), uint32_t(first)});
    return all;
  }

  void run(const std::vector<uint2>& tiles, bool causal, Buffer<T>& out) const {
    Buffer<uint32_t> cu_seqlens(borders);
    Buffer<uint2> list(tiles);
    std::string name = std::string("attention_") + kSuffix<T> + "_" + std::to_string(head_size);
    check::run(name, {uint32_t(tiles.size()), uint32_t(heads)}, {kAttentionThreads},
               kAttentionSharedBytesPerHeadSize * head_size, (const T*)qkv.data(), (const uint32_t*)cu_seqlens.data(),
               (const uint2*)list.data(), out.data(), heads, scale(), int(causal));
  }

  double number(uint32_t token, int part, int head, int i) const {
    return qkv.at(token * pitch() + size_t(part * heads + head) * head_size + i);
  }

  std::vector<double> expected(bool causal) const {
    std::vector<double> all(out_size());
    for (int sequence = 0; sequence < count(); sequence++) {
      uint32_t start = borders[sequence];
      for (int head = 0; head < heads; head++) {
        for (int row = 0; row < length(sequence); row++) {
          int keys = causal ? row + 1 : length(sequence);
          std::vector<double> scores(keys);
          double total = 0;
          for (int key = 0; key < keys; key++) {
            double score = 0;
            for (int i = 0; i < head_size; i++)
              score += number(start + row, 0, head, i) * number(start + key, 1, head, i);
            total += scores[key] = std::exp(score * scale());
          }
          double* out = all.data() + (size_t(start + row) * heads + head) * head_size;
          for (int key = 0; key < keys; key++)
            for (int i = 0; i < head_size; i++) out[i] += scores[key] / total * number(start + key, 2, head, i);
        }
      }
    }
    return all;
  }
};

template <class T> void expect_attention(int head_size, int heads, const std::vector<int>& lengths, bool causal) {
  Random random(head_size * 8 + causal);
  Sequences<T> sequences(random, heads, head_size, lengths);
  Buffer<T> out(sequences.out_size());
  sequences.run(sequences.tiles(), causal, out);
  // The probabilities and the result are rounded once each.
  EXPECT_CLOSE(out, sequences.expected(causal), 1.5 * check::kRounding<T>, "%s, head size %d, %d heads, causal %d",
               kSuffix<T>, head_size, heads, causal);
}

TEST(attention_is_near_the_exact_result) {
  expect_attention<bf16>(32, 3, {1, 65, 2}, false);
  expect_attention<f16>(32, 1, {1, 512, 3}, true);
  expect_attention<bf16>(64, 2, {63, 1, 64, 65}, true);
  expect_attention<f16>(64, 1, {200, 2}, false);
  expect_attention<bf16>(80, 1, {1, 200}, false);
  expect_attention<f16>(80, 2, {2, 63, 70}, true);
  expect_attention<bf16>(96, 1, {65, 64}, true);
  expect_attention<f16>(96, 2, {64, 5}, false);
  expect_attention<bf16>(128, 2, {20, 65}, false);
  expect_attention<f16>(128, 1, {130, 1}, true);
}

template <class T> void expect_attention_order(int head_size, const std::vector<int>& lengths, bool causal) {
  Random random(51);
  Sequences<T> sequences(random, 1, head_size, lengths);
  Buffer<T> out(sequences.out_size());
  expect_same_bits("attention", [&] { sequences.run(sequences.tiles(), causal, out); }, out);
}

TEST(attention_does_not_depend_on_the_order_of_threads_or_copies) {
  expect_attention_order<bf16>(32, {150, 1}, true);
  expect_attention_order<f16>(64, {66}, false);
  expect_attention_order<bf16>(80, {140}, false);
  expect_attention_order<f16>(96, {65}, true);
  expect_attention_order<bf16>(128, {20, 66}, false);
}

// The rows of a sequence have the same bits with any first row of their tile and among any other sequences, even ones
// that are no numbers; and rows outside of the tile are not written.
template <class T> void expect_independent_sequences(int head_size, int length, bool causal) {
  Random random(61);
  int heads = 2;
  Sequences<T> alone(random, heads, head_size, {length});
  size_t row_size = size_t(heads) * head_size;
  Buffer<T> whole(alone.out_size());
  alone.run(alone.tiles(), causal, whole);

  Sequences<T> among(random, heads, head_size, {7, length, 9});
  among.qkv.fill_poison();
  memcpy(static_cast<void*>(among.qkv.data() + 7 * alone.pitch()), alone.qkv.data(), alone.qkv.size() * sizeof(T));
  for (int first : {0, 1, 37, 63, 64, 66, length - 1}) {
    Buffer<T> out(among.out_size());
    among.run({{1, uint32_t(first)}}, causal, out);
    int end = std::min(length, first + kAttentionTileRows);
    size_t tile_bytes = (end - first) * row_size * sizeof(T);
    bool same = !memcmp(out.data() + (7 + first) * row_size, whole.data() + first * row_size, tile_bytes);
    EXPECT(same, "%s, head size %d, causal %d: rows %d to %d", kSuffix<T>, head_size, causal, first, end - 1);
    std::vector<unsigned char> bytes = out.bytes();
    for (size_t i = 0; i < bytes.size(); i++) {
      int row = int(i / sizeof(T) / row_size) - 7;
      if (row < first || row >= end) EXPECT(bytes[i] == 0xff, "row %d is not of the tile at %d", row, first);
    }
  }
}

TEST(attention_bits_of_a_row_depend_on_its_sequence_alone) {
  expect_independent_sequences<bf16>(32, 150, true);
  expect_independent_sequences<f16>(80, 131, false);
  expect_independent_sequences<bf16>(64, 100, true);
}

TEST(attention_of_large_scores_is_finite) {
  Random random(71);
  Sequences<bf16> sequences(random, 1, 32, {70});
  for (size_t i = 0; i < sequences.qkv.size(); i++) sequences.qkv[i] = from_f32<bf16>(sequences.qkv.at(i) * 8.f);
  Buffer<bf16> out(sequences.out_size());
  sequences.run(sequences.tiles(), false, out);
  EXPECT_CLOSE(out, sequences.expected(false), 1.5 * check::kRounding<bf16>, "scores of hundreds");
}

// ---- The models of the instructions ----

// Copies 16 bytes a thread through shared memory to its neighbour. fault 1 lacks the wait, fault 2 the barrier.
KERNEL pass_on(const uint4* from, uint4* to, int fault) {
  DYNAMIC_SHARED(shared);
  uint4* staged = (uint4*)shared;
  copy16_async(shared_address(staged + threadIdx.x), from + threadIdx.x, true);
  commit_copies();
  if (fault == 1) wait_copies<1>();
  else wait_copies<0>();
  if (fault != 2) __syncthreads();
  to[threadIdx.x] = staged[threadIdx.x ^ 1];
  wait_copies<0>();
}
HOST_KERNEL(pass_on)

TEST(a_missing_wait_or_barrier_changes_the_bits) {
  Random random(81);
  Buffer<uint4> from(64);
  for (size_t i = 0; i < from.size(); i++) from[i] = {uint32_t(random.bits()), 1, 2, uint32_t(i)};
  auto run = [&](int fault, host::CopyTime time, host::Order order) {
    Buffer<uint4> to(64);
    host::copy_time = time;
    check::order = order;
    check::run("pass_on", {1}, {64}, 64 * 16, (const uint4*)from.data(), to.data(), fault);
    host::copy_time = host::CopyTime::Late;
    check::order = host::Order::Forward;
    return to.bytes();
  };
  using host::CopyTime;
  using host::Order;
  std::vector<unsigned char> right = run(0, CopyTime::Late, Order::Forward);
  EXPECT(right == run(0, CopyTime::Early, Order::Reverse), "a correct kernel gives the same bits");
  EXPECT(right != run(1, CopyTime::Late, Order::Forward), "a missing wait is found");
  bool equal = run(2, CopyTime::Late, Order::Forward) == run(2, CopyTime::Late, Order::Reverse);
  EXPECT(!equal, "a missing barrier is found");
}

}  // namespace
