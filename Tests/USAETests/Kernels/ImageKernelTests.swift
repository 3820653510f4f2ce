import Testing
import KernelTypes

@testable import USAE

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The kernels of images that are optimised, against plain loops in double, for every kernel set of this processor.
@Suite struct ImageKernelTests {
  static let names = SignKernelTests.names

  private static func images(_ name: String) throws -> ImageKernels { try SignKernelTests.table(name).images }

  /// Roundings to float32, relative.
  static let unit = 0x1p-24

  // MARK: Bands

  @Test(arguments: names, [16, 32, 48, 80, 528])
  func rowsAreAddedWithTheirWeights(kernels name: String, columns: Int) throws {
    let images = try Self.images(name)
    var random = TestRandom(UInt64(columns))
    for taps in [1, 2, 3, 9] {
      let stride = columns + 16
      let rows = random.rows(taps, stride), weights = random.row(taps)
      var out = [Float](repeating: -7, count: columns + 1)
      images.bandOfRows(rows.flatMap { $0 }, stride, weights, taps, columns, &out)
      for c in 0..<columns {
        let column = rows.map { $0[c] }
        // A rounding for each product and each sum.
        let allowed = 2 * Double(taps) * Self.unit * Reference.dot(column.map(abs), weights.map(abs))
        #expect(abs(Double(out[c]) - Reference.dot(column, weights)) <= allowed)
      }
      #expect(out[columns] == -7)
    }
  }

  @Test(arguments: names, [1, 2, 17, 224])
  func lanesAreAddedWithTheirWeights(kernels name: String, count: Int) throws {
    let images = try Self.images(name)
    var random = TestRandom(UInt64(count))
    for taps in [1, 2, 5] {
      let values = random.rows(count + taps, 16), weights = random.rows(count, taps)
      let starts = (0..<count).map { Int32($0 * 7 % (count + 1)) }
      var out = [Float](repeating: -7, count: count * 16 + 1)
      images.bandOfLanes(values.flatMap { $0 }, starts, weights.flatMap { $0 }, taps, count, &out)
      for o in 0..<count {
        for lane in 0..<16 {
          let terms = (0..<taps).map { values[Int(starts[o]) + $0][lane] }
          let allowed = 2 * Double(taps) * Self.unit * Reference.dot(terms.map(abs), weights[o].map(abs))
          #expect(abs(Double(out[o * 16 + lane]) - Reference.dot(terms, weights[o])) <= allowed)
        }
      }
      #expect(out[count * 16] == -7)
    }
  }

  // MARK: Colours

  private static let identity: [Float] = [1, 0, 0, 0, 1, 0, 0, 0, 1]

  /// Three planes that are `columns + 16` apart, and what a kernel made of them, in planes that are `columns + 32` apart.
  private static func colours(_ images: ImageKernels, _ planes: [[Float]], _ matrix: [Float]) -> [[Float]] {
    let columns = planes[0].count
    var out = [Float](repeating: -7, count: 3 * (columns + 32))
    let x = planes.flatMap { $0 + [Float](repeating: .nan, count: 16) }
    images.colours(x, columns + 16, matrix, columns, &out, columns + 32)
    for j in 0..<3 { for c in columns..<columns + 32 { #expect(out[j * (columns + 32) + c] == -7) } }
    return (0..<3).map { Array(out[$0 * (columns + 32)..<$0 * (columns + 32) + columns]) }
  }

  @Test(arguments: names)
  func theLogisticFunctionIsExactToFourUnits(kernels name: String) throws {
    let images = try Self.images(name)
    let count = 1 << 17
    let x = (0..<count).map { -80 + 160 * (Float($0) + 0.5) / Float(count) }
    let y = Self.colours(images, [x, x, x], Self.identity)[1]
    var worst = 0.0
    for (x, y) in zip(x, y) {
      let expected = 1 / (1 + exp(-Double(x)))
      worst = max(worst, abs(Double(y) - expected) / expected)
    }
    // The exponential function to 2 units of the last place (one is up to 2^-23 of a number), and two roundings more.
    #expect(worst <= 6 * Self.unit)
    #expect(zip(y, y.dropFirst()).allSatisfy { $0 <= $1 * (1 + 0x1p-22) }, "and it does not fall by more than that")
  }

  @Test(arguments: names)
  func coloursOfHugeNumbersStayBetweenZeroAndOne(kernels name: String) throws {
    let images = try Self.images(name)
    let x: [Float] = [
      0, -0.0, 80, -80, 81, -81, 1e4, -1e4, .greatestFiniteMagnitude, -.greatestFiniteMagnitude, .infinity, -.infinity,
      .leastNonzeroMagnitude, -.leastNonzeroMagnitude, 17, -17,
    ]
    let y = Self.colours(images, [x, x.map { _ in 0 }, x.map { _ in 0 }], Self.identity)[0]
    #expect(y[0] == 0.5 && y[1] == 0.5 && y[12] == 0.5 && y[13] == 0.5)
    for (x, y) in zip(x, y) {
      #expect((0...1).contains(y), "\(x)")
      if x >= 17 { #expect(y == 1) }
      if x <= -80 { #expect(y > 0 && y < 2e-35) }
    }
  }

  @Test(arguments: names)
  func coloursMixThePlanes(kernels name: String) throws {
    let images = try Self.images(name)
    var random = TestRandom(1)
    for columns in [16, 48] {
      let x = random.rows(3, columns), matrix = random.row(9)
      let y = Self.colours(images, x, matrix)
      for j in 0..<3 {
        for c in 0..<columns {
          let terms = (0..<3).map { Double(x[$0][c]) * Double(matrix[3 * $0 + j]) }
          // The logit has five roundings, the slope of the logistic function is at most 1/4, and four units of its own.
          let allowed = (terms.reduce(0) { $0 + abs($1) } * 5 / 4 + 6) * Self.unit
          #expect(abs(Double(y[j][c]) - 1 / (1 + exp(-terms.reduce(0, +)))) <= allowed)
        }
      }
    }
  }

  @Test(arguments: names)
  func gradientsOfColours(kernels name: String) throws {
    let images = try Self.images(name)
    var random = TestRandom(2)
    for columns in [16, 48] {
      let plane = columns + 16
      let rgb = random.row(3 * plane).map { 1 / (1 + exp(-$0)) }, gradient = random.row(3 * plane), matrix = random.row(9)
      var out = [Float](repeating: -7, count: 3 * (columns + 32))
      images.coloursAdjoint(rgb, gradient, plane, matrix, columns, &out, columns + 32)
      for i in 0..<3 {
        for c in 0..<columns {
          let terms = (0..<3).map { j in
            let value = Double(rgb[j * plane + c])
            return Double(matrix[3 * i + j]) * Double(gradient[j * plane + c]) * value * (1 - value)
          }
          let allowed = 8 * Self.unit * terms.reduce(0) { $0 + abs($1) }
          #expect(abs(Double(out[i * (columns + 32) + c]) - terms.reduce(0, +)) <= allowed)
        }
        for c in columns..<columns + 32 { #expect(out[i * (columns + 32) + c] == -7) }
      }
    }
  }

  // MARK: Phases

  @Test(arguments: names)
  func sinesAndCosinesOfAThousandTurns(kernels name: String) throws {
    let images = try Self.images(name)
    let count = 1 << 17
    var phases = (0..<count).map { -6000 + 12000 * (Float($0) + 0.5) / Float(count) }
    for i in 0..<4096 { phases[i] = Float(i - 2048) * Float.pi / 4 }  // where quarters meet
    phases[4096] = 0
    var re = [Float](repeating: -7, count: count + 1), im = re
    images.spectrum(phases, [Float](repeating: 1, count: count), count, &re, &im)
    var worst = 0.0
    for i in 0..<count {
      worst = max(worst, abs(Double(re[i]) - cos(Double(phases[i]))), abs(Double(im[i]) - sin(Double(phases[i]))))
    }
    // Two units of numbers just below 1: the rest of the division by a quarter turn errs by half of one, the polynomial and
    // its rounding by the others.
    #expect(worst <= 2 * Self.unit)
    #expect(re[count] == -7 && im[count] == -7)
    #expect(re[4096] == 1 && im[4096] == 0)
  }

  @Test(arguments: names)
  func phasesFarBeyondGiveNoNumbersAboveTheMagnitude(kernels name: String) throws {
    let images = try Self.images(name)
    let phases: [Float] = [1e5, -1e5, 1e6, -1e6, 1e7, -1e7, 3e7, 1e8, 1e9, 1e12, -1e12, 1e20, -1e20, 1e30, -3e38, 3e38]
    var re = [Float](repeating: -7, count: 16), im = re
    images.spectrum(phases, [Float](repeating: 2, count: 16), 16, &re, &im)
    for i in 0..<16 { #expect((re[i] * re[i] + im[i] * im[i]).squareRoot() <= 4, "\(phases[i])") }
  }

  @Test(arguments: names)
  func magnitudesAndGradientsOfPhases(kernels name: String) throws {
    let images = try Self.images(name)
    var random = TestRandom(3)
    for columns in [16, 64] {
      let phases = random.row(columns), magnitudes = random.row(columns).map(abs)
      var re = [Float](repeating: -7, count: columns + 1), im = re, out = re
      images.spectrum(phases, magnitudes, columns, &re, &im)
      let g = random.rows(2, columns)
      images.phaseGradient(re, im, g[0], g[1], 0.375, columns, &out)
      for c in 0..<columns {
        let (size, phase) = (Double(magnitudes[c]), Double(phases[c]))
        #expect(abs(Double(re[c]) - size * cos(phase)) <= 3 * Self.unit * size)
        #expect(abs(Double(im[c]) - size * sin(phase)) <= 3 * Self.unit * size)
        let terms = [Double(re[c]) * Double(g[1][c]), -Double(im[c]) * Double(g[0][c])]
        #expect(abs(Double(out[c]) - 0.375 * (terms[0] + terms[1])) <= 2 * Self.unit * (abs(terms[0]) + abs(terms[1])))
      }
      #expect(re[columns] == -7 && im[columns] == -7 && out[columns] == -7)
    }
  }

  // MARK: Noise

  /// The noise of a row of zeros, by the definition: eight bytes of two words each of Philox4x32-10.
  private static func noise(_ k: NoisyRowConstants, _ columns: Int) -> [Float] {
    (0..<columns).map { c in
      let counter = UInt32(c / 32 * 16 + c % 16)
      let words = CounterRandom.philox(counter: (counter, k.counter.0, k.counter.1, k.counter.2), key: k.key)
      let pair = c % 32 < 16 ? [words.0, words.1] : [words.2, words.3]
      let bytes = pair.flatMap { word in (0..<4).map { Int(word >> (8 * $0)) & 255 } }
      return Float(bytes.reduce(-1020, +))
    }
  }

  @Test(arguments: names, [16, 32, 48, 240])
  func noiseHasTheSameBitsOnEveryProcessor(kernels name: String, columns: Int) throws {
    let images = try Self.images(name)
    var random = TestRandom(4)
    let row = random.row(columns)
    let constants = [
      NoisyRowConstants(key: (0, 0), counter: (0, 0, 0), deviation: 1, scale: 1, shift: 0),
      NoisyRowConstants(
        key: (0xFFFF_FFFF, 0x8000_0001), counter: (25_165_823, 11, 0xFFFF_FFFF), deviation: 0.05, scale: 4.4, shift: -2.1),
    ]
    for var k in constants {
      var out = [Float](repeating: -7, count: columns + 1)
      images.noisyRow(&k, row, columns, &out)
      let unit = k.deviation * 0.00478426
      let expected = zip(row, Self.noise(k, columns)).map { ($0 + unit * $1) * k.scale + k.shift }
      #expect(Array(out[..<columns]) == expected)
      #expect(out[columns] == -7)
    }
  }

  /// Published: Random123's known answers for Philox4x32-10.
  @Test func theNoisesGeneratorIsPhilox() {
    #expect(
      CounterRandom.philox(counter: (0, 0, 0, 0), key: (0, 0)) == (0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8))
  }

  @Test(arguments: names)
  func noiseLooksNormalAndHasNoNeighbours(kernels name: String) throws {
    let images = try Self.images(name)
    let columns = 1024, rows = 1024
    let zeros = [Float](repeating: 0, count: columns)
    var all: [Float] = []
    for row in 0..<rows {
      var k = NoisyRowConstants(key: (5, 0), counter: (UInt32(row), 11, 3), deviation: 1, scale: 1, shift: 0)
      var out = zeros
      images.noisyRow(&k, zeros, columns, &out)
      all += out
    }
    let n = Double(all.count)
    func mean(_ body: (Int) -> Double) -> Double { all.indices.reduce(0) { $0 + body($1) } / n }
    func correlation(_ lag: Int) -> Double { mean { Double(all[$0]) * Double(all[($0 + lag) % all.count]) } }
    // Four deviations of each of these estimates, from n = 2^20 independent numbers; the fourth power of a normal one has
    // variance 96.
    let four = 4 / n.squareRoot()
    #expect(abs(mean { Double(all[$0]) }) <= four)
    #expect(abs(mean { Double(all[$0]) * Double(all[$0]) } - 1) <= four * 2.0.squareRoot())
    #expect(abs(mean { pow(Double(all[$0]), 4) } - 2.85) <= four * 96.0.squareRoot())
    for lag in [1, 15, 16, 17, 32, columns - 1, columns, columns + 16] { #expect(abs(correlation(lag)) <= four, "\(lag)") }
  }

  // MARK: Steps

  @Test(arguments: names, [16, 80])
  func aStepUphill(kernels name: String, columns: Int) throws {
    let images = try Self.images(name)
    var random = TestRandom(5)
    let gradient = random.row(columns), parameters = random.row(columns)
    let before = (m: random.row(columns), v: random.row(columns).map { $0 * $0 })
    var k = AscentConstants(
      beta1: 0.9, beta2: 0.999, ofGradient: 0.03, ofMoment: 0.2, inverseRootCorrection: 3, epsilon: 1e-4)
    var m = before.m + [-7], v = before.v + [-7], out = parameters + [-7]
    images.ascend(&k, gradient, &m, &v, &out, columns)
    for c in 0..<columns {
      let g = Double(gradient[c])
      let first = Double(k.beta1) * Double(before.m[c]) + Double(1 - k.beta1) * g
      let second = Double(k.beta2) * Double(before.v[c]) + Double(1 - k.beta2) * g * g
      let change = (Double(k.ofGradient) * g + Double(k.ofMoment) * first) / (second.squareRoot() * 3 + Double(k.epsilon))
      #expect(abs(Double(m[c]) - first) <= 3 * Self.unit * (abs(g) + abs(Double(before.m[c]))))
      #expect(abs(Double(v[c]) - second) <= 4 * Self.unit * second)
      let magnitude = (0.03 * abs(g) + 0.2 * (abs(g) + abs(Double(before.m[c])))) / (second.squareRoot() * 3)
      let allowed = Self.unit * (10 * magnitude + 2 * abs(Double(parameters[c])) + 2 * abs(change))
      #expect(abs(Double(out[c]) - Double(parameters[c]) - change) <= allowed)
    }
    #expect(m[columns] == -7 && v[columns] == -7 && out[columns] == -7)
  }

  /// PyTorch's formulas, in double: NAdam (Dozat, 2016, with PyTorch's momentum decay) and Adam, and a rate that falls as a
  /// cosine.
  @Test(arguments: [ImageMaximizer.Options.Optimizer.nadam, .adam])
  func stepsAreThoseOfPyTorch(method: ImageMaximizer.Options.Optimizer) throws {
    let count = 48, steps = 7
    var random = TestRandom(6)
    let values = try FloatBuffer(count), gradient = try FloatBuffer(count)
    values.base.update(from: random.row(count), count: count)
    var expected = (0..<count).map { Double(values.base[$0]) }
    var m = [Double](repeating: 0, count: count), v = m
    var product = 1.0
    let ascent = try Ascent(method, rate: 0.3, steps: steps, count: count)
    for t in 1...steps {
      let g = random.row(count).map { $0 * 1e-6 }  // as small as gradients of images are: epsilon must not count
      gradient.base.update(from: g, count: count)
      ascent.ascend(values, along: gradient, work: InterruptibleWork(threads: 1))
      let rate = 0.3 * 0.5 * (1 + cos(Double.pi * Double(t - 1) / Double(steps)))
      func momentum(_ t: Int) -> Double { 0.9 * (1 - 0.5 * pow(0.96, Double(t) * 4e-3)) }
      product *= momentum(t)
      for i in 0..<count {
        m[i] = 0.9 * m[i] + 0.1 * Double(g[i])
        v[i] = 0.999 * v[i] + 0.001 * Double(g[i]) * Double(g[i])
        let root = (v[i] / (1 - pow(0.999, Double(t)))).squareRoot() + 1e-12
        switch method {
        case .nadam:
          expected[i] += rate * (1 - momentum(t)) / (1 - product) * Double(g[i]) / root
          expected[i] += rate * momentum(t + 1) / (1 - product * momentum(t + 1)) * m[i] / root
        case .adam: expected[i] += rate * m[i] / (1 - pow(0.9, Double(t))) / root
        }
      }
    }
    // A change is at most 1, and errs by ten roundings and by those of its constants: 1 - .999 as a float32 is off by 5e-5 of
    // itself, unless the constants make up for it.
    for i in 0..<count { #expect(abs(Double(values.base[i]) - expected[i]) <= 1e-5) }
  }
}
