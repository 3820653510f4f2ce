import Testing
import KernelTypes

@testable import USAE

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Transforms of images, against sums in double, for every kernel set of this processor.
///
/// A transform of n numbers errs by about log n roundings of its norm; 1e-6 is 16 of them.
@Suite struct FourierTests {
  static let names = SignKernelTests.names
  static let tolerance = 1e-6

  /// Half spectra and images of several planes.
  struct Planes: Equatable {
    var re: [Float] = [], im: [Float] = [], image: [Float] = []
  }

  private static func forward(_ transform: FourierTransform, _ image: [Float], planes: Int, threads: Int = 1) throws -> Planes {
    let count = planes * transform.height * transform.bins
    var out = Planes(re: [Float](repeating: -7, count: count + 1), im: [Float](repeating: -7, count: count + 1))
    try transform.forward(image, planes: planes, re: &out.re, im: &out.im, work: InterruptibleWork(threads: threads))
    #expect(out.re.removeLast() == -7 && out.im.removeLast() == -7)
    return out
  }

  private static func inverse(
    _ transform: FourierTransform, _ spectra: Planes, planes: Int, threads: Int = 1
  ) throws -> [Float] {
    var image = [Float](repeating: -7, count: planes * transform.height * transform.width + 1)
    try transform.inverse(
      re: spectra.re, im: spectra.im, planes: planes, image: &image, work: InterruptibleWork(threads: threads))
    #expect(image.removeLast() == -7)
    return image
  }

  private static func transform(_ name: String, _ height: Int, _ width: Int) throws -> FourierTransform {
    try FourierTransform(height: height, width: width, kernels: SignKernelTests.table(name).fourier)
  }

  private static func distance(_ a: [Float], _ b: [Double]) -> Double {
    zip(a, b).reduce(0.0) { $0 + (Double($1.0) - $1.1) * (Double($1.0) - $1.1) }.squareRoot()
  }

  private static func norm(_ a: [Double]) -> Double { a.reduce(0.0) { $0 + $1 * $1 }.squareRoot() }

  private static func expectForward(_ name: String, _ height: Int, _ width: Int) throws {
    var random = TestRandom(UInt64(height * 1000 + width))
    let image = random.row(2 * height * width)
    let spectra = try forward(transform(name, height, width), image, planes: 2)
    let bins = width / 2 + 1
    for plane in 0..<2 {
      let expected = Reference.rfft2(Array(image[plane * height * width..<(plane + 1) * height * width]), height, width)
      let range = plane * height * bins..<(plane + 1) * height * bins
      let error = max(distance(Array(spectra.re[range]), expected.re), distance(Array(spectra.im[range]), expected.im))
      #expect(error <= tolerance * norm(expected.re + expected.im), "\(height) x \(width)")
    }
  }

  private static func expectInverse(_ name: String, _ height: Int, _ width: Int) throws {
    var random = TestRandom(UInt64(height * 1000 + width))
    let bins = width / 2 + 1
    // Any numbers, also imaginary parts of bins that would be real if they came from an image.
    let spectrum = Planes(re: random.row(height * bins), im: random.row(height * bins))
    let image = try inverse(transform(name, height, width), spectrum, planes: 1)
    let expected = Reference.irfft2(spectrum.re, spectrum.im, height, width)
    #expect(distance(image, expected) <= tolerance * norm(expected), "\(height) x \(width)")
  }

  @Test(arguments: names)
  func smallImagesOfAllSizes(kernels name: String) throws {
    for height in 1...20 {
      for width in 1...20 {
        try Self.expectForward(name, height, width)
        try Self.expectInverse(name, height, width)
      }
    }
  }

  @Test(arguments: names, [[64, 48], [35, 63], [37, 97], [101, 11], [22, 518], [1, 512], [256, 1], [33, 34], [5, 26]])
  func largerImages(kernels name: String, size: [Int]) throws {
    try Self.expectForward(name, size[0], size[1])
    try Self.expectInverse(name, size[0], size[1])
  }

  @Test(arguments: names, [[512, 512], [224, 448], [37, 35]])
  func thereAndBackIsTheImage(kernels name: String, size: [Int]) throws {
    var random = TestRandom(9)
    let transform = try Self.transform(name, size[0], size[1])
    let image = random.row(3 * size[0] * size[1])
    let spectra = try Self.forward(transform, image, planes: 3)
    let back = try Self.inverse(transform, spectra, planes: 3)
    let expected = image.map(Double.init)
    #expect(Self.distance(back, expected) <= Self.tolerance * Self.norm(expected))
  }

  /// <F x, y> = <x, F* y>, F* y being the inverse without its 1 / (height width) once bins that stand for two count half.
  @Test(arguments: [[16, 18], [9, 15]])
  func theInverseIsTheAdjointOfTheTransform(size: [Int]) throws {
    let (height, width) = (size[0], size[1])
    var random = TestRandom(3)
    let transform = try FourierTransform(height: height, width: width)
    let x = random.row(height * width)
    let y = Planes(re: random.row(height * transform.bins), im: random.row(height * transform.bins))
    let spectrum = try Self.forward(transform, x, planes: 1)
    let left = Reference.dot(spectrum.re, y.re) + Reference.dot(spectrum.im, y.im)
    func halved(_ values: [Float]) -> [Float] {
      values.enumerated().map { index, value in
        let bin = index % transform.bins
        return bin == 0 || 2 * bin == width ? value : value / 2
      }
    }
    let back = try Self.inverse(transform, Planes(re: halved(y.re), im: halved(y.im)), planes: 1)
    let right = Reference.dot(x, back) * Double(height * width)
    #expect(abs(left - right) <= Self.tolerance * Double(height * width) * 4)
  }

  @Test(arguments: names)
  func bitsDoNotDependOnThreadsOrPlanes(kernels name: String) throws {
    for (height, width) in [(64, 48), (35, 63), (130, 74), (512, 512)] {  // five planes of 512 x 512 are several groups
      var random = TestRandom(7)
      let transform = try Self.transform(name, height, width)
      let image = random.row(5 * height * width)
      let spectra = try Self.forward(transform, image, planes: 5)
      let back = try Self.inverse(transform, spectra, planes: 5)
      for threads in [2, 4] {
        #expect(try Self.forward(transform, image, planes: 5, threads: threads) == spectra)
        #expect(try Self.inverse(transform, spectra, planes: 5, threads: threads) == back)
      }
      let last = Array(image[(4 * height * width)...])
      let alone = try Self.forward(transform, last, planes: 1)
      #expect(alone.re == Array(spectra.re[(4 * height * transform.bins)...]))
      #expect(alone.im == Array(spectra.im[(4 * height * transform.bins)...]))
      #expect(try Self.inverse(transform, alone, planes: 1) == Array(back[(4 * height * width)...]))
    }
  }

  @Test func whatIsNotFiniteIsForgottenByTheNextCall() throws {
    let transform = try FourierTransform(height: 5, width: 40)
    var random = TestRandom(8)
    let image = random.row(200)
    let clean = try Self.forward(transform, image, planes: 1)
    let back = try Self.inverse(transform, clean, planes: 1)
    _ = try Self.forward(transform, [Float](repeating: .nan, count: 200), planes: 1)
    #expect(try Self.inverse(transform, clean, planes: 1) == back)
    #expect(try Self.forward(transform, image, planes: 1) == clean)
  }

  @Test func manyCallersAtOnce() async throws {
    let transform = try FourierTransform(height: 50, width: 70)
    var random = TestRandom(4)
    let image = random.row(3500)
    let expected = try Self.forward(transform, image, planes: 1)
    try await withThrowingTaskGroup(of: Bool.self) { group in
      for _ in 0..<8 {
        group.addTask {
          try (0..<20).allSatisfy { _ in try Self.forward(transform, image, planes: 1, threads: 2) == expected }
        }
      }
      for try await same in group { #expect(same) }
    }
  }

  @Test func radicesMultiplyToTheLength() {
    for length in FourierTransform.sides {
      #expect(FourierPlan.radices(of: length).reduce(1, *) == length)
    }
    #expect(FourierPlan.radices(of: 1024) == [8, 8, 16])
    #expect(FourierPlan.radices(of: 518) == [2, 7, 37])
  }

  @Test func sizesOutOfRangeAreRefused() throws {
    for (height, width) in [(0, 4), (4, 0), (-1, 4), (8193, 1), (1, Int.max)] {
      #expect(throws: USAEError.self) { _ = try FourierTransform(height: height, width: width) }
    }
    let transform = try FourierTransform(height: 2, width: 2)
    for planes in [0, -1, Int.max] {
      var out: [Float] = [0, 0, 0, 0]
      #expect(throws: USAEError.self) {
        try transform.inverse(
          re: [0, 0, 0, 0], im: [0, 0, 0, 0], planes: planes, image: &out, work: InterruptibleWork(threads: 1))
      }
    }
  }
}

extension Reference {
  /// The half spectrum of an image: rows by the definition, then columns.
  static func rfft2(_ image: [Float], _ height: Int, _ width: Int) -> (re: [Double], im: [Double]) {
    let bins = width / 2 + 1
    var rows = [Complex](repeating: Complex(), count: height * bins)
    for h in 0..<height {
      let row = (0..<width).map { Complex(re: Double(image[h * width + $0]), im: 0) }
      rows.replaceSubrange(h * bins..<(h + 1) * bins, with: dft(row, sign: -1)[..<bins])
    }
    let spectrum = dftOfColumns(rows, height, bins, sign: -1)
    return (spectrum.map(\.re), spectrum.map(\.im))
  }

  static func irfft2(_ re: [Float], _ im: [Float], _ height: Int, _ width: Int) -> [Double] {
    let bins = width / 2 + 1
    let columns = dftOfColumns(zip(re, im).map { Complex(re: Double($0), im: Double($1)) }, height, bins, sign: 1)
    return (0..<height).flatMap { h in
      let row = (0..<width).map { w in
        let bin = columns[h * bins + min(w, width - w)]
        return w == 0 || 2 * w == width
          ? Complex(re: bin.re, im: 0) : Complex(re: bin.re, im: w < bins ? bin.im : -bin.im)
      }
      return dft(row, sign: 1).map { $0.re / Double(height * width) }
    }
  }

  private struct Complex {
    var re = 0.0, im = 0.0
  }

  private static func dft(_ x: [Complex], sign: Double) -> [Complex] {
    let roots = x.indices.map { i in
      let angle = sign * 2 * Double.pi * Double(i) / Double(x.count)
      return Complex(re: cos(angle), im: sin(angle))
    }
    return x.indices.map { k in
      x.indices.reduce(into: Complex()) { sum, j in
        let w = roots[j * k % x.count]
        sum.re += x[j].re * w.re - x[j].im * w.im
        sum.im += x[j].re * w.im + x[j].im * w.re
      }
    }
  }

  private static func dftOfColumns(_ rows: [Complex], _ height: Int, _ bins: Int, sign: Double) -> [Complex] {
    var out = rows
    for c in 0..<bins {
      for (h, value) in dft((0..<height).map { rows[$0 * bins + c] }, sign: sign).enumerated() { out[h * bins + c] = value }
    }
    return out
  }
}
