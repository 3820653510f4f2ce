import KernelTypes

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The map from optimised planes to red, green and blue between 0 and 1.
///
/// Natural colours are correlated: most variance is brightness. In a space without correlation, a step has the same effect on
/// each channel. The matrix is that of Lucid (Olah et al., 2017), from the colours of ImageNet.
struct ColourSpace: Sendable {
  /// rgb[j] = logistic(sum over i of x[i] * matrix[3 i + j]).
  let matrix: [Float]

  static let decorrelated = ColourSpace(matrix: [
    0.56282854, 0.58447580, 0.58447580, 0.19482528, 0, -0.19482528, 0.04329450, -0.10823626, 0.06494176,
  ])
  static let rgb = ColourSpace(matrix: [1, 0, 0, 0, 1, 0, 0, 0, 1])

  /// Writes the colours of `planes` [3, height, width] to the canvas.
  func colours(_ planes: ConstantFloats, to canvas: Canvas, work: InterruptibleWork) throws(USAEError) {
    let (height, width) = (canvas.height, canvas.width)
    try work.runBlocks(height, of: 16) { _, rows, _ in
      matrix.withUnsafeBufferPointer { matrix in
        for y in rows {
          kernels.images.colours(
            planes + y * width, height * width, matrix.baseAddress!, paddedWidth(width), canvas.row(0, y), canvas.plane)
        }
      }
    }
  }

  /// Computes the gradient with respect to the planes, [3, height, width], from that of the canvas. `scratch`: three padded
  /// rows for each thread.
  func adjoint(
    of gradient: Canvas, at image: Canvas, to planes: Floats, scratch: [FloatBuffer], work: InterruptibleWork
  ) throws(USAEError) {
    let (height, width) = (image.height, image.width)
    let row = paddedWidth(width)
    try work.runBlocks(height, of: 16) { _, rows, worker in
      let scratch = scratch[worker].base
      matrix.withUnsafeBufferPointer { matrix in
        for y in rows {
          kernels.images.coloursAdjoint(
            image.row(0, y), gradient.row(0, y), image.plane, matrix.baseAddress!, row, scratch, row)
          for channel in 0..<Canvas.channels {
            (planes + (channel * height + y) * width).update(from: scratch + channel * row, count: width)
          }
        }
      }
    }
  }

  /// The inverse of `colours`, for colours that are clamped away from 0 and 1: `planes` and `image` [3, count].
  func planes(of image: ConstantFloats, count: Int, to planes: Floats) {
    let inverse = Self.inverse(of: matrix.map(Double.init))
    for pixel in 0..<count {
      let logits = (0..<3).map { channel in
        let value = min(0.995, max(0.005, Double(image[channel * count + pixel])))
        return log(value / (1 - value))
      }
      for i in 0..<3 {
        planes[i * count + pixel] = Float((0..<3).reduce(0.0) { $0 + logits[$1] * inverse[3 * $1 + i] })
      }
    }
  }

  private static func inverse(of m: [Double]) -> [Double] {
    func minor(_ r: Int, _ c: Int) -> Double {
      let (r1, r2, c1, c2) = ((r + 1) % 3, (r + 2) % 3, (c + 1) % 3, (c + 2) % 3)
      return m[3 * r1 + c1] * m[3 * r2 + c2] - m[3 * r1 + c2] * m[3 * r2 + c1]
    }
    let determinant = (0..<3).reduce(0.0) { $0 + m[$1] * minor(0, $1) }
    return (0..<9).map { minor($0 % 3, $0 / 3) / determinant }
  }
}
