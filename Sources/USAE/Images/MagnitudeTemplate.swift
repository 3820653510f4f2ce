#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// How large the frequencies of an image are, [3, height, width / 2 + 1].
enum MagnitudeTemplate {
  /// Natural images, in closed form: max(f, 1/512)^-1.25 exp(-(f / .22)^2) with f in cycles a pixel, and channels as 1 : 1.05 :
  /// .83. Its cumulative energy is within .02 at every octave of that of ImageNet's mean spectrum (1/f would be far too noisy,
  /// 1/f^1.5 too smooth). It is evaluated at the canvas's own frequencies; a resized picture of a spectrum would treat a
  /// frequency and its opposite unequally.
  static func natural(_ layout: SpectrumLayout) throws(USAEError) -> FloatBuffer {
    try closedForm(layout, gains: [1, 1.05, 0.83]) { pow(max($0, 1.0 / 512), -1.25) * exp(-($0 / 0.22) * ($0 / 0.22)) }
  }

  /// 1/f, as in Lucid: all octaves alike.
  static func inverseFrequency(_ layout: SpectrumLayout) throws(USAEError) -> FloatBuffer {
    let lowest = 1 / Double(max(layout.height, layout.width))
    return try closedForm(layout, gains: [1, 1, 1]) { 1 / max($0, lowest) }
  }

  private static func closedForm(_ layout: SpectrumLayout, gains: [Double], _ size: (Double) -> Double) throws(USAEError)
    -> FloatBuffer
  {
    let magnitude = try FloatBuffer(layout.padded)
    for channel in 0..<3 {
      for y in 0..<layout.height {
        let down = Double(min(y, layout.height - y)) / Double(layout.height)
        for bin in 0..<layout.bins {
          let across = Double(bin) / Double(layout.width)
          let i = channel * layout.plane + y * layout.bins + bin
          magnitude.base[i] = Float(gains[channel] * size((down * down + across * across).squareRoot()))
        }
      }
    }
    return magnitude
  }

  /// Scales it so that planes of these magnitudes have mean square `contrast`^2 about their means, by Parseval's theorem.
  static func normalize(_ magnitude: FloatBuffer, _ layout: SpectrumLayout, contrast: Double) {
    var energy = 0.0
    for channel in 0..<3 {
      for y in 0..<layout.height {
        for bin in 0..<layout.bins where y + bin > 0 {
          let value = Double(magnitude.base[channel * layout.plane + y * layout.bins + bin])
          energy += value * value * (layout.isSelfConjugate(bin) ? 1 : 2)
        }
      }
    }
    let pixels = Double(layout.height * layout.width)
    let meanSquare = energy / (3 * pixels * pixels)
    guard meanSquare > 0 else { return }
    let factor = Float(contrast / meanSquare.squareRoot())
    for i in 0..<layout.count { magnitude.base[i] *= factor }
  }
}
