import Testing
import KernelTypes

@testable import USAE

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Optimisation of images: parametrizations, views, and the backward passes of both.
@Suite struct MaximizationTests {
  /// A float32 sum of a few products, relative to the norms of its factors.
  static let tolerance = 2e-6
  private static let work = InterruptibleWork(threads: 1)
  private static let plain = try! PixelScale(mean: [0, 0, 0], deviation: [1, 1, 1])

  private static func options(
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

  private static func image(_ maximizer: ImageMaximizer) throws -> [Float] {
    var out = [Float](repeating: -7, count: 3 * maximizer.options.height * maximizer.options.width + 1)
    try maximizer.image(&out)
    #expect(out.removeLast() == -7)
    return out
  }

  private static func views(_ maximizer: ImageMaximizer, _ height: Int = 16, _ width: Int = 16) throws -> [Float] {
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

  private static func norm(_ values: [Float]) -> Double { Reference.dot(values, values).squareRoot() }

  // MARK: Resizing

  static let resizings = [[1, 1], [1, 7], [7, 1], [5, 5], [51, 224], [256, 224], [257, 37], [40, 16], [16, 40], [19, 18]]

  /// PyTorch's antialiased bilinear, entry by entry: a triangle as wide as two samples of the coarser side.
  private static func triangle(_ from: Int, _ to: Int) -> [[Double]] {
    let scale = Double(from) / Double(to)
    return (0..<to).map { o in
      let row = (0..<from).map { i in
        max(0, 1 - abs(Double(i) + 0.5 - (Double(o) + 0.5) * scale) / max(1, scale))
      }
      return row.map { $0 / row.reduce(0, +) }
    }
  }

  private static func dense(_ matrix: BandedMatrix) -> [[Float]] {
    (0..<matrix.rows).map { row in
      var out = [Float](repeating: 0, count: matrix.columns)
      for tap in 0..<matrix.taps { out[Int(matrix.starts[row]) + tap] += matrix.weights[row * matrix.taps + tap] }
      return out
    }
  }

  @Test(arguments: resizings)
  func bandsAreTriangles(size: [Int]) {
    let matrix = BandedMatrix(resizing: size[0], to: size[1])
    let found = Self.dense(matrix), expected = Self.triangle(size[0], size[1])
    // Weights are rounded once; where a triangle's end falls on a sample, double decides whether it is 0 or 1e-16.
    for (row, other) in zip(found, expected) { for (a, b) in zip(row, other) { #expect(abs(Double(a) - b) <= 1e-7) } }
    #expect(matrix.starts.allSatisfy { $0 >= 0 && Int($0) + matrix.taps <= matrix.columns })
  }

  @Test(arguments: resizings)
  func transposedBandsAreTheTranspose(size: [Int]) {
    let matrix = BandedMatrix(resizing: size[0], to: size[1])
    let back = matrix.transposed
    let there = Self.dense(matrix), transposed = Self.dense(back)
    #expect(back.rows == size[0] && back.columns == size[1])
    for r in 0..<size[1] { for c in 0..<size[0] { #expect(there[r][c] == transposed[c][r]) } }
    #expect(back.starts.allSatisfy { $0 >= 0 && Int($0) + back.taps <= back.columns })
  }

  /// <views of x, g> = <x, adjoint of g>, over boxes that overlap, touch edges, and are as large as the canvas.
  @Test(arguments: [[20, 20, 16, 16], [7, 9, 16, 5], [33, 21, 17, 40], [1, 1, 3, 2], [18, 36, 1, 1]])
  func gradientsOfViewsAreTheAdjoint(size: [Int]) throws {
    let (height, width) = (36, 45)
    var random = TestRandom(UInt64(size[0]))
    let canvas = try Canvas(height: height, width: width)
    let x = random.row(3 * height * width)
    canvas.copy(from: x)
    let somewhere = (3 % (height - size[0] + 1), 1)
    let boxes = [(0, 0), (height - size[0], width - size[1]), somewhere, somewhere].map {
      Box(top: $0.0, left: $0.1, height: size[0], width: size[1])
    }
    let resampler = Resampler(from: (size[0], size[1]), to: (size[2], size[3]))
    let count = 4 * 3 * size[2] * size[3]
    var views = [Float](repeating: -7, count: count)
    try canvas.views(boxes, with: resampler, scale: Self.plain, noise: .none, to: &views, work: Self.work)
    let g = random.row(count)
    let padded = try PaddedMatrix(rows: 4 * 3 * size[2], columns: size[3])
    for row in 0..<padded.rows { for c in 0..<size[3] { padded.row(row)[c] = g[row * size[3] + c] } }
    let back = try Canvas(height: height, width: width)
    try back.addAdjoint(of: padded, boxes, with: resampler, work: Self.work)
    var y = x
    back.copy(to: &y)
    let allowed = Self.tolerance * (Self.norm(views) * Self.norm(g) + Self.norm(x) * Self.norm(y))
    #expect(abs(Reference.dot(views, g) - Reference.dot(x, y)) <= allowed)
    // Compares entry by entry, too.
    let rows = Self.triangle(size[0], size[2]), columns = Self.triangle(size[1], size[3])
    for (view, box) in boxes.enumerated() {
      for o in [0, size[2] / 2, size[2] - 1] {
        for p in [0, size[3] / 2, size[3] - 1] {
          var expected = 0.0
          for r in 0..<size[0] {
            for c in 0..<size[1] {
              expected += rows[o][r] * columns[p][c] * Double(x[height * width + (box.top + r) * width + box.left + c])
            }
          }
          #expect(abs(Double(views[((view * 3 + 1) * size[2] + o) * size[3] + p]) - expected) <= Self.tolerance * 4)
        }
      }
    }
  }

  @Test func cropsOfAConstantImageAreConstantAndScaled() throws {
    let image = [Float](repeating: 0.25, count: 3 * 30 * 40)
    let boxes = [Box(top: 0, left: 0, height: 30, width: 17), Box(top: 0, left: 23, height: 30, width: 17)]
    var out = [Float](repeating: -7, count: 2 * 3 * 9 * 11 + 1)
    try cropAndResize(
      image, height: 30, width: 40, boxes: boxes, to: (9, 11),
      scale: PixelScale(mean: [0.25, 0.5, 0], deviation: [1, 0.5, 0.25]), out: &out, work: Self.work)
    for (i, value) in out.dropLast().enumerated() { #expect(abs(value - [0, -0.5, 1][i / 99 % 3]) <= 1e-6) }
    #expect(out.last == -7)
    for box in [
      Box(top: -1, left: 0, height: 30, width: 17), Box(top: 1, left: 0, height: 30, width: 17),
      Box(top: 0, left: 24, height: 30, width: 17), Box(top: 0, left: 0, height: 0, width: 17),
      Box(top: Int.max, left: 0, height: 1, width: 1), Box(top: 0, left: 0, height: Int.max, width: Int.max),
      Box(top: 0, left: Int.min, height: 1, width: 1),
    ] {
      #expect(throws: USAEError.self) {
        try cropAndResize(
          image, height: 30, width: 40, boxes: [box], to: (9, 11), scale: Self.plain, out: &out, work: Self.work)
      }
    }
    #expect(throws: USAEError.self, "boxes of two sizes") {
      try cropAndResize(
        image, height: 30, width: 40, boxes: [boxes[0], Box(top: 0, left: 0, height: 2, width: 2)], to: (9, 11),
        scale: Self.plain, out: &out, work: Self.work)
    }
  }

  // MARK: Colours

  @Test(arguments: [ColourSpace.decorrelated, .rgb], [[6, 16], [5, 21]])
  func coloursAndTheirGradients(space: ColourSpace, size: [Int]) throws {
    let (height, width) = (size[0], size[1])
    let pixels = height * width
    var random = TestRandom(7)
    let x = random.row(3 * pixels), g = random.row(3 * pixels)
    let planes = try FloatBuffer(3 * pixels + 32)
    planes.base.update(from: x, count: 3 * pixels)
    let canvas = try Canvas(height: height, width: width), gradient = try Canvas(height: height, width: width)
    try space.colours(planes.base, to: canvas, work: Self.work)
    var rgb = x
    canvas.copy(to: &rgb)
    gradient.copy(from: g)
    var out = [Float](repeating: -7, count: 3 * pixels + 1)
    try space.adjoint(of: gradient, at: canvas, to: &out, scratch: try makeScratch(1, 3 * paddedWidth(width)), work: Self.work)
    #expect(out.removeLast() == -7)
    let m = space.matrix.map(Double.init)
    for p in 0..<pixels {
      var value = [0.0, 0.0, 0.0], slope = value
      for j in 0..<3 {
        var logit = 0.0
        for i in 0..<3 { logit += Double(x[i * pixels + p]) * m[3 * i + j] }
        value[j] = 1 / (1 + exp(-logit))
        slope[j] = Double(g[j * pixels + p]) * value[j] * (1 - value[j])
      }
      for j in 0..<3 {
        let expected = m[3 * j] * slope[0] + m[3 * j + 1] * slope[1] + m[3 * j + 2] * slope[2]
        #expect(abs(Double(rgb[j * pixels + p]) - value[j]) <= 3e-7)
        #expect(abs(Double(out[j * pixels + p]) - expected) <= 1e-6)
      }
    }
    // There and back: a logit has the error of its colour over the slope, which is above .005 here.
    space.planes(of: rgb, count: pixels, to: &out)
    for (a, b) in zip(out, x) where abs(b) < 1.5 { #expect(abs(a - b) <= 1e-3) }
  }

  // MARK: What the free numbers stand for

  static let sizes = [[8, 8], [7, 9], [6, 5], [5, 6], [1, 4], [4, 1], [2, 2], [1, 1], [16, 18], [3, 34]]

  private static func layout(_ size: [Int]) throws -> SpectrumLayout { try SpectrumLayout(height: size[0], width: size[1]) }

  private static func parametrization(_ kind: String, _ size: [Int]) throws -> any ImageParametrization {
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
  private static func spectrum(_ planes: FloatBuffer, _ layout: SpectrumLayout, _ channel: Int)
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
    let pattern = (0..<5 * 3 * 256).map { sizes[$0 % 4] * Float($0 % 3 == 0 ? 0 : 1) }
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
