import Testing
import KernelTypes

@testable import USAE

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Views, from the image to the colours that a network sees, and their backward passes.
extension MaximizationTests {
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
}
