// Tensor maps on the host: a matrix in memory and the size of the boxes that TMA copies. The fake driver's
// cuTensorMapEncodeTiled and the tests encode them; the model of TMA reads them.
#pragma once
#include <cstdint>
#include <cstring>

namespace host {

struct TensorMapModel {
  void* base;
  uint64_t rows, columns, pitch_bytes;
  uint32_t box_rows, box_columns;
  uint32_t element_bytes;
  uint32_t swizzle_bytes;  // 0, 32, 64 or 128
  uint64_t mark;           // kTensorMapMark once encoded
};

constexpr uint64_t kTensorMapMark = 0x70616d20726f736eu;
constexpr size_t kTensorMapBytes = 128;
static_assert(sizeof(TensorMapModel) <= kTensorMapBytes, "the model fits into the opaque bytes");

// Fills the 128 bytes at `map` under the conditions of cuTensorMapEncodeTiled. Returns null, or the condition that does
// not hold, for which the driver returns CUDA_ERROR_INVALID_VALUE.
inline const char* encode_tensor_map(void* map, void* base, uint64_t rows, uint64_t columns, uint64_t pitch_bytes,
                                     uint32_t box_rows, uint32_t box_columns, uint32_t element_bytes,
                                     uint32_t swizzle_bytes) {
  if (!map || reinterpret_cast<uintptr_t>(map) % 64) return "the tensor map is not aligned to 64 bytes";
  if (!base || reinterpret_cast<uintptr_t>(base) % 16) return "the matrix is not aligned to 16 bytes";
  if (element_bytes != 1 && element_bytes != 2 && element_bytes != 4 && element_bytes != 8) {
    return "the element size is not 1, 2, 4 or 8 bytes";
  }
  if (!rows || rows > uint64_t(1) << 32) return "the number of rows is not within 1 to 2^32";
  if (!columns || columns > uint64_t(1) << 32) return "the number of columns is not within 1 to 2^32";
  if (pitch_bytes % 16 || pitch_bytes >= uint64_t(1) << 40) return "the pitch is not a multiple of 16 below 2^40";
  if (pitch_bytes < columns * element_bytes) return "the pitch is less than a row";
  if (!box_rows || box_rows > 256 || !box_columns || box_columns > 256)
    return "a side of the box is not within 1 to 256";
  if (box_columns * element_bytes % 16) return "a row of the box is not a multiple of 16 bytes";
  if (swizzle_bytes != 0 && swizzle_bytes != 32 && swizzle_bytes != 64 && swizzle_bytes != 128)
    return "no such swizzle";
  if (swizzle_bytes && box_columns * element_bytes > swizzle_bytes)
    return "a row of the box is longer than the swizzle";
  TensorMapModel model = {base,        rows,          columns,       pitch_bytes,   box_rows,
                          box_columns, element_bytes, swizzle_bytes, kTensorMapMark};
  memset(map, 0, kTensorMapBytes);
  memcpy(map, &model, sizeof model);
  return nullptr;
}

}  // namespace host
