import KernelTypes

/// Three colour planes [3, height, width]. Rows are padded, by sixteen floats at least, so that kernels may read past them.
final class Canvas: @unchecked Sendable {
  static let channels = 3
  let height, width, stride: Int
  let storage: FloatBuffer

  init(height: Int, width: Int) throws(USAEError) {
    self.height = height
    self.width = width
    stride = paddedWidth(width) + 16
    storage = try FloatBuffer(Self.channels * height * stride)
  }

  /// Floats from one plane to the next.
  var plane: Int { height * stride }

  func row(_ channel: Int, _ row: Int) -> Floats { storage.base + channel * plane + row * stride }

  /// To a dense array [3, height, width].
  func copy(to out: Floats) {
    for channel in 0..<Self.channels {
      for y in 0..<height { (out + (channel * height + y) * width).update(from: row(channel, y), count: width) }
    }
  }

  /// From a dense array [3, height, width].
  func copy(from values: ConstantFloats) {
    for channel in 0..<Self.channels {
      for y in 0..<height { row(channel, y).update(from: values + (channel * height + y) * width, count: width) }
    }
  }

  /// Whether no number is NaN or infinite.
  var isFinite: Bool {
    var sum: Float = 0  // of x - x: 0, or NaN from the first that is not finite
    for channel in 0..<Self.channels {
      for y in 0..<height {
        let row = row(channel, y)
        for x in 0..<width { sum += row[x] - row[x] }
      }
    }
    return sum == 0
  }

  /// Root of the sum of squares: of each row, then of rows in order, so that it does not depend on threads.
  func norm(work: InterruptibleWork) throws(USAEError) -> Double {
    let rows = try AlignedBuffer<Double>(Self.channels * height)
    try work.runBlocks(rows.count, of: 64) { _, range, _ in
      for i in range { rows.base[i] = self.sumOfSquares(of: self.row(i / self.height, i % self.height)) }
    }
    return (0..<rows.count).reduce(0) { $0 + rows.base[$1] }.squareRoot()
  }

  /// Eight sums, for the latency of additions.
  private func sumOfSquares(of row: Floats) -> Double {
    var sums = SIMD8<Double>.zero
    var x = 0
    while x + 8 <= width {
      let values = SIMD8<Double>(UnsafeRawPointer(row + x).loadUnaligned(as: SIMD8<Float>.self))
      sums += values * values
      x += 8
    }
    while x < width {
      sums[x % 8] += Double(row[x]) * Double(row[x])
      x += 1
    }
    return sums.sum()
  }
}
