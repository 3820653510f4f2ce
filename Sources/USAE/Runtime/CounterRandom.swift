import KernelTypes

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Philox4x32-10 (Salmon et al., 2011): random numbers as a pure function of seed, stream and position.
///
/// There is no state to save, or to share between threads: any thread can make, repeat or skip a draw.
struct CounterRandom: Sendable {
  /// What a number is drawn for. Values are part of the reproducibility promise and are never reused.
  enum Stream: UInt32 {
    case encoderWeight = 1
    case encoderBias = 2
    case dictionary = 3
    case encoderDraw = 4
    case rowOrder = 5
    case statisticsRows = 6
    case dictionaryRows = 7
    case restartTokens = 8
    case imageStart = 9
    case viewBoxes = 10
    case viewNoise = 11
    case prefixDraw = 12
    case auxiliaryTokens = 13
    case secondEncoderDraw = 14
    case inputNoise = 15
  }

  private let key: (UInt32, UInt32)
  private let stream: (UInt32, UInt32)

  /// - Parameter part: tells streams of the same kind apart (the model's index).
  init(seed: UInt64, stream: Stream, part: Int = 0) {
    key = (UInt32(truncatingIfNeeded: seed), UInt32(truncatingIfNeeded: seed >> 32))
    self.stream = (stream.rawValue, UInt32(truncatingIfNeeded: part))
  }

  func block(_ position: UInt64) -> (UInt32, UInt32, UInt32, UInt32) {
    Self.philox(
      counter: (
        UInt32(truncatingIfNeeded: position), UInt32(truncatingIfNeeded: position >> 32), stream.0, stream.1
      ), key: key)
  }

  static func philox(counter: (UInt32, UInt32, UInt32, UInt32), key: (UInt32, UInt32))
    -> (UInt32, UInt32, UInt32, UInt32)
  {
    var (a, b, c, d) = counter
    var (k0, k1) = key
    for _ in 0..<10 {
      let left = UInt64(a) &* 0xD251_1F53
      let right = UInt64(c) &* 0xCD9E_8D57
      a = UInt32(truncatingIfNeeded: right >> 32) ^ b ^ k0
      c = UInt32(truncatingIfNeeded: left >> 32) ^ d ^ k1
      b = UInt32(truncatingIfNeeded: right)
      d = UInt32(truncatingIfNeeded: left)
      k0 &+= 0x9E37_79B9
      k1 &+= 0xBB67_AE85
    }
    return (a, b, c, d)
  }

  func bits(_ position: UInt64) -> UInt64 {
    let word = block(position)
    return UInt64(word.0) << 32 | UInt64(word.1)
  }

  /// Uniform in 0..<bound, for bounds far below 2^64 (the bias is bound / 2^64).
  func index(_ position: UInt64, below bound: Int) -> Int {
    Int(bits(position).multipliedFullWidth(by: UInt64(bound)).high)
  }

  /// Uniform in (-limit, limit), in 24 bits.
  func uniform(_ position: UInt64, limit: Float) -> Float {
    (Float(block(position).0 >> 8) + 0.5) * (2 * limit / 16_777_216) - limit
  }

  /// Fills `out` with standard normals (Box-Muller), four from each block from `position` on.
  func fillNormals(_ out: UnsafeMutableBufferPointer<Float>, from position: UInt64) {
    for start in stride(from: 0, to: out.count, by: 4) {
      let word = block(position &+ UInt64(start / 4))
      let (a, b) = Self.normals(word.0, word.1)
      let (c, d) = Self.normals(word.2, word.3)
      out[start] = a
      if start + 1 < out.count { out[start + 1] = b }
      if start + 2 < out.count { out[start + 2] = c }
      if start + 3 < out.count { out[start + 3] = d }
    }
  }

  /// What kernels need to add noise to a row in a step. The first word of its counter is the row's, which the caller sets.
  /// The kind of stream takes the low eight bits of a word, and its part the others.
  func rowNoise(step: Int, deviation: Double, scale: Float = 1, shift: Float = 0) -> NoisyRowConstants {
    NoisyRowConstants(
      key: key, counter: (0, stream.0 | stream.1 << 8, UInt32(truncatingIfNeeded: step)), deviation: Float(deviation),
      scale: scale, shift: shift)
  }

  private static func normals(_ first: UInt32, _ second: UInt32) -> (Float, Float) {
    let radius = (-2 * log((Double(first) + 0.5) / 4_294_967_296)).squareRoot()
    let angle = 2 * Double.pi * Double(second) / 4_294_967_296
    return (Float(radius * cos(angle)), Float(radius * sin(angle)))
  }
}
