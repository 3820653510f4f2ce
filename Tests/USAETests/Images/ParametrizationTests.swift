import Testing
import KernelTypes

@testable import USAE

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// What the free numbers of an image stand for, and their backward passes.
extension MaximizationTests {
  // MARK: What the free numbers stand for

  static let sizes = [[8, 8], [7, 9], [6, 5], [5, 6], [1, 4], [4, 1], [2, 2], [1, 1], [16, 18], [3, 34]]

  static func layout(_ size: [Int]) throws -> SpectrumLayout { try SpectrumLayout(height: size[0], width: size[1]) }

  static func parametrization(_ kind: String, _ size: [Int]) throws -> any ImageParametrization {
    let layout = try Self.layout(size)
    let isPhase = kind == "phase"
    let magnitude = try isPhase ? MagnitudeTemplate.natural(layout) : MagnitudeTemplate.inverseFrequency(layout)
    MagnitudeTemplate.normalize(magnitude, layout, contrast: 1)
    if isPhase {
      let made = try PhaseParametrization(
        layout: layout, magnitude: magnitude, random: CounterRandom(seed: 1, stream: .imageStart))
      for channel in 0..<3 { made.values.base[layout.padded + channel] = Float(channel) - 0.7 }
      return made
    }
    var random = TestRandom(4)
    let start = try FloatBuffer(paddedWidth(3 * size[0] * size[1]) + 16)
    start.base.update(from: random.row(3 * size[0] * size[1]), count: 3 * size[0] * size[1])
    if kind == "pixels" { return try PixelParametrization(start: start) }
    return try SpectrumParametrization(layout: layout, magnitude: magnitude, start: start, work: work)
  }

  /// A plane depends on each phase as on a sine, and on all other free numbers linearly. Half the difference between values a
  /// quarter turn up and down is then the derivative of a sine exactly (and pi / 2 times a linear one), so this is free of the
  /// errors of small differences: both sides are sums of float32 numbers.
  @Test(arguments: ["phase", "spectrum", "pixels"], sizes)
  func gradientsOfFreeNumbersAreDifferences(kind: String, size: [Int]) throws {
    let made = try Self.parametrization(kind, size)
    let count = 3 * size[0] * size[1]
    var random = TestRandom(8)
    let g = random.row(count)
    let planes = try FloatBuffer(paddedWidth(count) + 16), gradient = try FloatBuffer(made.values.count)
    planes.base.update(from: g, count: count)
    let incoming = try FloatBuffer(planes.count)
    incoming.copy(from: planes)
    try made.render(to: planes, work: Self.work)
    try made.pullBack(incoming, to: gradient, work: Self.work)
    func value() throws -> Double {
      try made.render(to: planes, work: Self.work)
      return Reference.dot(g, (0..<count).map { planes.base[$0] })
    }
    let scale = Self.norm(g) * Self.norm((0..<count).map { planes.base[$0] }) + Self.norm(g)
    let layout = try Self.layout(size)
    for i in 0..<made.values.count {
      let isPhase = kind == "phase" && i < layout.padded
      let before = made.values.base[i]
      made.values.base[i] = before + .pi / 2
      let up = try value()
      made.values.base[i] = before - .pi / 2
      let down = try value()
      made.values.base[i] = before
      let expected = (up - down) / 2 / (isPhase ? 1 : .pi / 2)
      // A frequency that is its own opposite has no free phase: the image has no slope there that could be followed.
      let isFixed = isPhase && Self.isOwnMirror(i, layout)
      let allowed = Self.tolerance * (scale + abs(up) + abs(down))
      if !isFixed { #expect(abs(Double(gradient.base[i]) - expected) <= allowed, "\(kind) \(size) \(i)") }
      if isFixed { #expect(gradient.base[i] == 0) }
    }
  }

  private static func isOwnMirror(_ i: Int, _ layout: SpectrumLayout) -> Bool {
    var found = false
    layout.forEachOwnMirror { found = found || $0 == i }
    return found
  }

  /// The spectrum of each plane, in double.
  static func spectrum(_ planes: FloatBuffer, _ layout: SpectrumLayout, _ channel: Int)
    -> (re: [Double], im: [Double])
  {
    let pixels = layout.height * layout.width
    return Reference.rfft2((0..<pixels).map { planes.base[channel * pixels + $0] }, layout.height, layout.width)
  }

  @Test(arguments: sizes)
  func imagesHaveExactlyTheMagnitudesThatWereAskedFor(size: [Int]) throws {
    let layout = try Self.layout(size)
    let magnitude = try MagnitudeTemplate.natural(layout)
    MagnitudeTemplate.normalize(magnitude, layout, contrast: 1.5)
    let made = try PhaseParametrization(
      layout: layout, magnitude: magnitude, random: CounterRandom(seed: 2, stream: .imageStart))
    for i in 0..<layout.count { made.values.base[i] += Float(i % 13) / 7 }  // as steps do, also to tied and to fixed ones
    layout.forEachOwnMirror { made.values.base[$0] = .pi }
    let planes = try FloatBuffer(paddedWidth(3 * size[0] * size[1]) + 16)
    try made.render(to: planes, work: Self.work)
    let pixels = size[0] * size[1]
    var meanSquare = 0.0
    for channel in 0..<3 {
      let found = Self.spectrum(planes, layout, channel)
      let total = (0..<layout.plane).reduce(0.0) { max($0, Double(magnitude.base[channel * layout.plane + $1])) }
      for i in 1..<max(1, layout.plane) {
        let size = (found.re[i] * found.re[i] + found.im[i] * found.im[i]).squareRoot()
        let expected = Double(magnitude.base[channel * layout.plane + i])
        #expect(abs(size - expected) <= Self.tolerance * max(expected, total), "bin \(i)")
      }
      #expect(abs(found.re[0]) <= 1e-5 * Double(pixels), "the mean is 0")
      meanSquare += (0..<pixels).reduce(0.0) { $0 + pow(Double(planes.base[channel * pixels + $1]), 2) } / Double(3 * pixels)
    }
    if pixels > 1 { #expect(abs(meanSquare.squareRoot() / 1.5 - 1) <= Self.tolerance) }
  }

  @Test func theTemplateIsTheClosedForm() throws {
    let layout = try Self.layout([12, 10])
    let magnitude = try MagnitudeTemplate.natural(layout)
    for (channel, gain) in [1, 1.05, 0.83].enumerated() {
      for y in 0..<12 {
        for bin in 0..<6 {
          let f = (pow(Double(y <= 6 ? y : y - 12) / 12, 2) + pow(Double(bin) / 10, 2)).squareRoot()
          let expected = gain * pow(max(f, 1.0 / 512), -1.25) * exp(-pow(f / 0.22, 2))
          #expect(abs(Double(magnitude.base[channel * 72 + y * 6 + bin]) / expected - 1) <= 1e-6)
        }
      }
    }
  }
}
