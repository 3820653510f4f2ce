import USAEKernelTypes

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

  /// Root of the sum of squares; rows in order, so that it does not depend on threads.
  var norm: Double {
    var sum = 0.0
    for channel in 0..<Self.channels {
      for y in 0..<height {
        let values = row(channel, y)
        for x in 0..<width { sum += Double(values[x]) * Double(values[x]) }
      }
    }
    return sum.squareRoot()
  }
}
