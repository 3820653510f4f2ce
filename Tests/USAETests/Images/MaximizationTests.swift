import Testing
import KernelTypes

@testable import USAE

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Optimisation of images: starts, steps and refusals. `ViewTests.swift` and `ParametrizationTests.swift` have the parts.
@Suite struct MaximizationTests {
  /// A float32 sum of a few products, relative to the norms of its factors.
  static let tolerance = 2e-6
  static let work = InterruptibleWork(threads: 1)
  static let plain = try! PixelScale(mean: [0, 0, 0], deviation: [1, 1, 1])

  static func options(
    _ parametrization: ImageMaximizer.Options.Parametrization = .phase, _ height: Int = 24, _ width: Int = 20,
    threads: Int = 1
  ) -> ImageMaximizer.Options {
    var options = ImageMaximizer.Options()
    options.parametrization = parametrization
    options.height = height
    options.width = width
    options.steps = 6
    options.views = 5
    options.seed = 3
    options.threads = threads
    return options
  }

  static func image(_ maximizer: ImageMaximizer) throws -> [Float] {
    var out = [Float](repeating: -7, count: 3 * maximizer.options.height * maximizer.options.width + 1)
    try maximizer.image(&out)
    #expect(out.removeLast() == -7)
    return out
  }

  static func views(_ maximizer: ImageMaximizer, _ height: Int = 16, _ width: Int = 16) throws -> [Float] {
    var out = [Float](repeating: -7, count: maximizer.options.views * 3 * height * width + 1)
    try maximizer.views(height: height, width: width, scale: plain, out: &out, poll: nil)
    #expect(out.removeLast() == -7)
    return out
  }

  @discardableResult
  private static func add(_ gradient: [Float], to maximizer: ImageMaximizer, _ height: Int = 16, _ width: Int = 16) throws
    -> Double
  {
    try maximizer.addGradient(gradient, height: height, width: width, scale: plain, weight: 1, poll: nil)
  }

  static func norm(_ values: [Float]) -> Double { Reference.dot(values, values).squareRoot() }

  // MARK: Starts

  /// Colours that a logit has: what is nearer to 0 or 1 is moved.
  private static func picture(_ size: [Int]) -> [Float] {
    var random = TestRandom(12)
    return random.row(3 * size[0] * size[1]).map { 1 / (1 + exp(-$0)) }
  }

  @Test(arguments: [ImageMaximizer.Options.Parametrization.pixels, .spectrum], [[24, 20], [17, 15], [1, 1]])
  func aStartFromAnImageIsTheImage(kind: ImageMaximizer.Options.Parametrization, size: [Int]) throws {
    let picture = Self.picture(size)
    for decorrelated in [true, false] {
      var options = Self.options(kind, size[0], size[1])
      options.decorrelatesColours = decorrelated
      let found = try Self.image(ImageMaximizer(options, magnitude: nil, start: picture))
      for (a, b) in zip(found, picture) { #expect(abs(a - b) <= 5e-6) }
    }
  }

  @Test(arguments: [[24, 20], [17, 15], [16, 9]])
  func aStartOfPhasesIsTheImageUnderItsOwnMagnitudes(size: [Int]) throws {
    let picture = Self.picture(size)
    let layout = try Self.layout(size)
    let pixels = size[0] * size[1]
    let planes = try FloatBuffer(paddedWidth(3 * pixels) + 16)
    ColourSpace.decorrelated.planes(of: picture, count: pixels, to: planes.base)
    var magnitude: [Float] = []
    for channel in 0..<3 {
      let spectrum = Self.spectrum(planes, layout, channel)
      magnitude += zip(spectrum.re, spectrum.im).map { Float(($0 * $0 + $1 * $1).squareRoot()) }
    }
    let own = try ImageMaximizer(Self.options(.phase, size[0], size[1]), magnitude: magnitude, start: picture)
    for (a, b) in zip(try Self.image(own), picture) { #expect(abs(a - b) <= 1e-5) }
    let natural = try ImageMaximizer(Self.options(.phase, size[0], size[1]), magnitude: nil, start: picture)
    #expect(try Self.image(natural) != picture, "other magnitudes make another image")
  }

  @Test func colours0And1AreAStart() throws {
    let picture = (0..<3 * 480).map { Float($0 % 2) }
    let found = try Self.image(ImageMaximizer(Self.options(.pixels), magnitude: nil, start: picture))
    for (a, b) in zip(found, picture) { #expect(abs(a - b) <= 0.00501, "they are moved to .005 and .995") }
  }

  // MARK: Steps

  /// Some steps whose gradients depend on the views, so that any difference would grow.
  private static func run(_ options: ImageMaximizer.Options, steps: Int = 4) throws -> [[Float]] {
    let maximizer = try ImageMaximizer(options)
    var found: [[Float]] = []
    for _ in 0..<steps {
      let small = try views(maximizer, 13, 16), large = try views(maximizer, 40, 33)
      try add(small.map { $0 - 0.3 }, to: maximizer, 13, 16)
      try add(large.map { 0.7 - $0 * $0 }, to: maximizer, 40, 33)
      try maximizer.advance(poll: nil)
      found += [small, large, try image(maximizer)]
    }
    var attribution = [Float](repeating: -7, count: options.height * options.width)
    try maximizer.attribution(&attribution)
    return found + [attribution]
  }

  @Test(arguments: [ImageMaximizer.Options.Parametrization.phase, .spectrum, .pixels], [[70, 50], [65, 131], [200, 120]])
  func resultsHaveTheSameBitsForAnyNumberOfThreads(kind: ImageMaximizer.Options.Parametrization, size: [Int]) throws {
    var options = Self.options(kind, size[0], size[1])
    options.totalVariation = 0.3
    options.square = 0.2
    let one = try Self.run(options)
    for threads in [2, 4] {
      options.threads = threads
      #expect(try Self.run(options) == one)
    }
  }

  @Test func viewsAndCropsDependOnTheSeedAndTheStepAlone() throws {
    func maximizer(_ change: (inout ImageMaximizer.Options) -> Void = { _ in }) throws -> ImageMaximizer {
      var options = Self.options(.pixels, 60, 50)
      (options.firstCrop, options.lastCrop) = (0.5, 0.1)
      change(&options)
      return try ImageMaximizer(options)
    }
    let first = try maximizer(), second = try maximizer { $0.parametrization = .phase; $0.learningRate = 5 }
    for step in 0..<6 {
      #expect(try first.boxes == second.boxes)
      #expect(try first.boxes.allSatisfy { box in
        box.height == box.width && box.top >= 0 && box.left >= 0 && box.top + box.height <= 60 && box.left + box.width <= 50
      })
      // From half of the shorter side to a tenth.
      #expect(try first.boxes[0].height == Int((25 - 20 * Double(step) / 5).rounded()))
      #expect(try Self.views(first) == Self.views(first), "asking twice gives the same")
      try Self.add(Self.views(second), to: second)
      for each in [first, second] { try each.advance(poll: nil) }
    }
    #expect(try maximizer { $0.seed = 4 }.boxes != maximizer().boxes)
    #expect(try maximizer { $0.seed = 3 + 1 << 32 }.boxes != maximizer().boxes, "all 64 bits of a seed count")
    #expect(try Self.image(maximizer { $0.seed = 4 }) != Self.image(maximizer()))
    let many = try maximizer { $0.views = 9 }
    #expect(try Array(many.boxes[..<5]) == maximizer().boxes, "more views begin with the same")
  }

  @Test func noiseIsThatOfTheViewAndAddsToIt() throws {
    var options = Self.options(.pixels, 60, 50)
    options.noise = 0
    let clean = try Self.views(ImageMaximizer(options), 48, 48)
    options.noise = 0.25
    let noisy = try Self.views(ImageMaximizer(options), 48, 48)
    let noise = zip(noisy, clean).map { $0 - $1 }
    let n = Double(noise.count)
    #expect(abs(noise.reduce(0.0) { $0 + Double($1) } / n) <= 4 * 0.25 / n.squareRoot())
    #expect(abs(Self.norm(noise) / n.squareRoot() / 0.25 - 1) <= 4 / (2 * n).squareRoot())
    // Views, channels and rows have noise of their own.
    for lag in [48, 48 * 48, 3 * 48 * 48] {
      let product = Reference.dot(Array(noise[lag...]), Array(noise[..<(noise.count - lag)]))
      #expect(abs(product) <= 4 * 0.0625 * n.squareRoot())
    }
  }

  @Test func regularizationIsTheSlopeOfItsTerms() throws {
    let (height, width) = (5, 7)
    var random = TestRandom(9)
    let x = random.row(3 * height * width)
    let image = try Canvas(height: height, width: width), gradient = try Canvas(height: height, width: width)
    image.copy(from: x)
    Regularization(totalVariation: 0.5, square: 0.25).subtractSlopes(at: image, from: gradient)
    var found = x
    gradient.copy(to: &found)
    let unit = 1 / Double(3 * height * width).squareRoot()
    func term(_ x: [Double]) -> Double {
      var sum = 0.0
      for i in x.indices {
        let (row, column) = (i / width % height, i % width)
        sum += 0.25 * unit * pow(x[i] - 0.5, 2)
        if column + 1 < width { sum += 0.5 * unit * (pow(x[i + 1] - x[i], 2) + 1e-6).squareRoot() }
        if row + 1 < height { sum += 0.5 * unit * (pow(x[i + width] - x[i], 2) + 1e-6).squareRoot() }
      }
      return sum
    }
    for i in x.indices {
      var up = x.map(Double.init), down = up
      up[i] += 1e-6
      down[i] -= 1e-6
      // Differences of 1e-6: the second derivative of the smoothed |x| changes over 1e-3, so they err by 1e-6 of the slope.
      #expect(abs(Double(found[i]) + (term(up) - term(down)) / 2e-6) <= 1e-6)
    }
  }

  @Test func attributionIsTheSizeOfTheGradients() throws {
    let maximizer = try ImageMaximizer(Self.options())
    var expected = [Double](repeating: 0, count: 480)
    for _ in 0..<3 {
      try Self.add(Self.views(maximizer), to: maximizer)
      var colours = [Float](repeating: 0, count: 1440), planes = colours
      try maximizer.gradients(colours: &colours, planes: &planes)
      #expect(abs(Self.norm(colours) - 1) <= 1e-6)
      for (i, value) in colours.enumerated() { expected[i % 480] += abs(Double(value)) }
      try maximizer.advance(poll: nil)
    }
    var found = [Float](repeating: 0, count: 480)
    try maximizer.attribution(&found)
    for (a, b) in zip(found, expected) { #expect(abs(Double(a) - b) <= 1e-6) }
  }

  @Test(arguments: [1e-45, 1e-42, 1e-38, 1e-30, 1e30, 1e37])
  func theLengthOfAGradientDoesNotCount(scale: Double) throws {
    let sizes: [Float] = [1, -2, 1, 1]
    let pattern: [Float] = (0..<5 * 3 * 256).map { (i: Int) -> Float in i % 3 == 0 ? 0 : sizes[i % 4] }
    func image(_ gradient: [Float]) throws -> (length: Double, image: [Float]) {
      let maximizer = try ImageMaximizer(Self.options())
      let length = try Self.add(gradient, to: maximizer)
      try maximizer.advance(poll: nil)
      return (length, try Self.image(maximizer))
    }
    let plain = try image(pattern)
    // Powers of two: products with them are exact, also where they leave only a few bits.
    let factor = exp2(log2(scale).rounded())
    let scaled = try image(pattern.map { Float(Double($0) * factor) })
    #expect(abs(scaled.length / (plain.length * factor) - 1) <= 1e-6)
    for (a, b) in zip(scaled.image, plain.image) { #expect(abs(a - b) <= 1e-5) }
  }

  @Test func aGradientOfZerosAddsNothing() throws {
    let maximizer = try ImageMaximizer(Self.options())
    let before = try Self.image(maximizer)
    #expect(try Self.add([Float](repeating: 0, count: 5 * 3 * 256), to: maximizer) == 0)
    try maximizer.advance(poll: nil)
    #expect(try Self.image(maximizer) == before)
    #expect(try maximizer.stepCount == 1)
  }

  @Test(arguments: [Float.nan, .infinity, -.infinity])
  func aGradientThatIsNotFiniteChangesNothing(bad: Float) throws {
    let maximizer = try ImageMaximizer(Self.options()), other = try ImageMaximizer(Self.options())
    let views = try Self.views(maximizer)
    for position in [0, views.count / 2, views.count - 1] {
      var broken = views
      broken[position] = bad
      #expect(throws: USAEError.self) { try Self.add(broken, to: maximizer) }
    }
    for each in [maximizer, other] {
      try Self.add(views, to: each)
      try each.advance(poll: nil)
    }
    #expect(try Self.image(maximizer) == Self.image(other))
  }

  @Test func stepsAreThoseThatWerePlanned() throws {
    let maximizer = try ImageMaximizer(Self.options())
    for _ in 0..<6 {
      try Self.add(Self.views(maximizer), to: maximizer)
      try maximizer.advance(poll: nil)
    }
    let last = try Self.image(maximizer)
    #expect(throws: USAEError.self) { try maximizer.advance(poll: nil) }
    #expect(try Self.image(maximizer) == last)
    #expect(try maximizer.stepCount == 6)
    _ = try Self.views(maximizer)
  }

  /// Interrupted at any moment, a step is done or not begun.
  @Test func anInterruptedStepCanBeRepeated() throws {
    final class Countdown: @unchecked Sendable {
      var left: Int
      init(_ left: Int) { self.left = left }
    }
    var options = Self.options(.phase, 70, 50)
    options.totalVariation = 0.5
    let expected = try ImageMaximizer(options)
    let gradient = try Self.views(expected)
    try Self.add(gradient, to: expected)
    try expected.advance(poll: nil)
    func attribution(_ maximizer: ImageMaximizer) throws -> [Float] {
      var out = [Float](repeating: 0, count: 3500)
      try maximizer.attribution(&out)
      return out
    }
    for polls in 0..<40 {
      let maximizer = try ImageMaximizer(options)
      try Self.add(gradient, to: maximizer)
      let countdown = Countdown(polls)
      do {
        try maximizer.advance(poll: {
          countdown.left -= 1
          return countdown.left < 0
        })
      } catch {
        #expect(error == .interrupted)
        try maximizer.advance(poll: nil)
      }
      #expect(try Self.image(maximizer) == Self.image(expected))
      #expect(try attribution(maximizer) == attribution(expected))
    }
  }

  @Test func hugeLearningRatesGiveAnImage() throws {
    for kind in [ImageMaximizer.Options.Parametrization.phase, .spectrum, .pixels] {
      var options = Self.options(kind)
      options.learningRate = 1e6
      let maximizer = try ImageMaximizer(options)
      for _ in 0..<6 {
        try Self.add(Self.views(maximizer).map { $0 - 0.5 }, to: maximizer)
        try maximizer.advance(poll: nil)
      }
      #expect(try Self.image(maximizer).allSatisfy { (0...1).contains($0) })
    }
  }

  // MARK: What is refused

  @Test func optionsOutOfRangeAreRefused() throws {
    let changes: [(inout ImageMaximizer.Options) -> Void] = [
      { $0.height = 0 }, { $0.width = 0 }, { $0.height = 8193 }, { $0.width = 8193 }, { $0.height = -1 }, { $0.width = .max },
      { $0.steps = 0 }, { $0.views = 0 }, { $0.views = 1025 }, { $0.threads = -1 }, { $0.threads = 1025 },
      { $0.learningRate = -1 }, { $0.learningRate = .nan }, { $0.learningRate = .infinity }, { $0.firstCrop = 0 },
      { $0.firstCrop = 1.01 }, { $0.lastCrop = 0 }, { $0.lastCrop = .nan }, { $0.noise = -0.1 }, { $0.noise = .infinity },
      { $0.totalVariation = -1 }, { $0.square = .nan }, { $0.contrast = 0 }, { $0.contrast = .infinity },
    ]
    for change in changes {
      var options = Self.options()
      change(&options)
      #expect(throws: USAEError.self) { _ = try ImageMaximizer(options) }
    }
  }

  @Test func startsAndMagnitudesThatAreNoneAreRefused() throws {
    for bad in [Float.nan, .infinity, -0.01, 1.01, 255] {
      var picture = [Float](repeating: 0.5, count: 1440)
      picture[1439] = bad
      #expect(throws: USAEError.self) { _ = try ImageMaximizer(Self.options(), magnitude: nil, start: picture) }
    }
    for bad in [Float.nan, .infinity, -1] {
      var magnitude = [Float](repeating: 1, count: 3 * 24 * 11)
      magnitude[791] = bad
      #expect(throws: USAEError.self) { _ = try ImageMaximizer(Self.options(), magnitude: magnitude, start: nil) }
    }
    let flat = try ImageMaximizer(Self.options(), magnitude: [Float](repeating: 0, count: 3 * 24 * 11), start: nil)
    #expect(try Self.image(flat).allSatisfy { $0 == 0.5 }, "no magnitudes are a grey image")
  }

  @Test func viewsOfImpossibleSizesAreRefused() throws {
    let maximizer = try ImageMaximizer(Self.options())
    var out: [Float] = [0]
    for (height, width) in [(0, 4), (4, 0), (8193, 1), (1, 8193), (-1, 4), (4, Int.max)] {
      #expect(throws: USAEError.self) {
        try maximizer.views(height: height, width: width, scale: Self.plain, out: &out, poll: nil)
      }
      #expect(throws: USAEError.self) {
        _ = try maximizer.addGradient(out, height: height, width: width, scale: Self.plain, weight: 1, poll: nil)
      }
    }
    for weight in [Double.nan, .infinity, 1e300] {
      #expect(throws: USAEError.self) {
        _ = try maximizer.addGradient(
          [Float](repeating: 1, count: 3840), height: 16, width: 16, scale: Self.plain, weight: weight, poll: nil)
      }
    }
    for (mean, deviation) in [([0, 0], [1, 1, 1]), ([0, 0, 0], [1, 0, 1]), ([0, .nan, 0], [1, 1, 1]), ([0, 0, 0], [1, 1, -1])]
      as [([Float], [Float])]
    {
      #expect(throws: USAEError.self) { _ = try PixelScale(mean: mean, deviation: deviation) }
    }
  }
}
