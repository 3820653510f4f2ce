#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Penalties on the pixels, whose slopes are subtracted from a gradient of length 1.
///
/// Weights are on that scale: with a weight of 1 a term whose slope is 1 at every pixel is as long as the objective's gradient.
struct Regularization: Sendable {
  /// Weight of |differences of neighbours|, smoothed below .001.
  let totalVariation: Double
  /// Weight of (x - .5)^2.
  let square: Double

  private static let smoothing: Float = 1e-3

  func subtractSlopes(at image: Canvas, from gradient: Canvas) {
    let unit = 1 / (3 * Double(image.height * image.width)).squareRoot()
    if square > 0 { subtractSquare(Float(square * unit), image, gradient) }
    if totalVariation > 0 { subtractVariation(Float(totalVariation * unit), image, gradient) }
  }

  private func subtractSquare(_ weight: Float, _ image: Canvas, _ gradient: Canvas) {
    for channel in 0..<Canvas.channels {
      for y in 0..<image.height {
        let values = image.row(channel, y), slopes = gradient.row(channel, y)
        for x in 0..<image.width { slopes[x] -= 2 * weight * (values[x] - 0.5) }
      }
    }
  }

  private func subtractVariation(_ weight: Float, _ image: Canvas, _ gradient: Canvas) {
    for channel in 0..<Canvas.channels {
      for y in 0..<image.height {
        let values = image.row(channel, y), slopes = gradient.row(channel, y)
        for x in 0..<max(0, image.width - 1) { pull(values + x, values + x + 1, slopes + x, slopes + x + 1, weight) }
        if y + 1 == image.height { continue }
        let below = image.row(channel, y + 1), slopesBelow = gradient.row(channel, y + 1)
        for x in 0..<image.width { pull(values + x, below + x, slopes + x, slopesBelow + x, weight) }
      }
    }
  }

  /// Draws two neighbours together.
  @inline(__always)
  private func pull(
    _ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, _ slopeA: UnsafeMutablePointer<Float>,
    _ slopeB: UnsafeMutablePointer<Float>, _ weight: Float
  ) {
    let difference = b.pointee - a.pointee
    let slope = weight * difference / (difference * difference + Self.smoothing * Self.smoothing).squareRoot()
    slopeA.pointee += slope
    slopeB.pointee -= slope
  }
}
