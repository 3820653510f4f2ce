import Testing

@testable import USAE

/// Conversion to standardised float32, for every element type, layout and instruction set.
@Suite struct StandardizeTests {
  static let counts = [1, 15, 16, 17, 31, 100]

  @Test(arguments: availableKernels().map { "\($0.name)" }, counts)
  func everyTypeGivesTheSameNumbers(kernels name: String, count: Int) throws {
    let table = try #require(availableKernels().first { "\($0.name)" == name })
    // Eighths up to 16 are exact in all four types.
    let x = (0..<count).map { Float($0 % 129 - 64) / 8 }
    let mean = (0..<count).map { Float($0 % 3) }
    let inverse = (0..<count).map { 1 / Float($0 % 5 + 1) }
    let expected = (0..<count).map { (x[$0] - mean[$0]) * inverse[$0] }
    let out = try FloatBuffer(count)
    #expect(x.withUnsafeBytes { table.standardize.float32($0.baseAddress!, count, mean, inverse, out.base) })
    #expect((0..<count).map { out.base[$0] } == expected)
    #expect(x.map(Double.init).withUnsafeBytes { table.standardize.float64($0.baseAddress!, count, mean, inverse, out.base) })
    #expect((0..<count).map { out.base[$0] } == expected)
    let brain = x.map { UInt16($0.bitPattern >> 16) }
    #expect(brain.withUnsafeBytes { table.standardize.bfloat16($0.baseAddress!, count, mean, inverse, out.base) })
    #expect((0..<count).map { out.base[$0] } == expected)
    let half = x.map(halfBits)
    #expect(half.withUnsafeBytes { table.standardize.float16($0.baseAddress!, count, mean, inverse, out.base) })
    #expect((0..<count).map { out.base[$0] } == expected)
  }

  /// Bits of the half that equals a float exactly representable as one.
  private func halfBits(_ x: Float) -> UInt16 {
    guard x != 0 else { return 0 }
    let sign: UInt16 = x < 0 ? 0x8000 : 0
    return sign | UInt16(Int(x.exponent) + 15) << 10 | UInt16(x.significandBitPattern >> 13)
  }

  @Test(arguments: availableKernels().map { "\($0.name)" })
  func allHalvesAreConvertedExactly(kernels name: String) throws {
    let table = try #require(availableKernels().first { "\($0.name)" == name })
    let out = try FloatBuffer(1)
    for bits in UInt16(0)...UInt16.max {
      let exponent = Int(bits >> 10) & 31
      let fraction = Float(bits & 0x3ff)
      let finite = withUnsafeBytes(of: bits) { table.standardize.float16($0.baseAddress!, 1, [0], [1], out.base) }
      #expect(finite == (exponent != 31))
      guard finite else { continue }
      let power = Float(sign: .plus, exponent: exponent - 15, significand: 1)
      let magnitude = exponent == 0 ? fraction * 0x1p-24 : (1 + fraction / 1024) * power
      #expect(out.base[0] == (bits >> 15 == 0 ? magnitude : -magnitude))
    }
  }

  @Test(arguments: availableKernels().map { "\($0.name)" }, counts)
  func oneBadNumberAnywhereIsSeen(kernels name: String, count: Int) throws {
    let table = try #require(availableKernels().first { "\($0.name)" == name })
    let out = try FloatBuffer(count)
    let mean = [Float](repeating: 0, count: count)
    let inverse = [Float](repeating: 1, count: count)
    for place in Set([0, count / 2, count - 1]) {
      for bad in [Float.nan, .infinity, -.infinity] {
        var x = [Float](repeating: 1, count: count)
        x[place] = bad
        #expect(!x.withUnsafeBytes { table.standardize.float32($0.baseAddress!, count, mean, inverse, out.base) })
        let doubles = x.map(Double.init)
        #expect(!doubles.withUnsafeBytes { table.standardize.float64($0.baseAddress!, count, mean, inverse, out.base) })
        let brain = x.map { UInt16($0.bitPattern >> 16) | ($0.isNaN ? 1 : 0) }
        #expect(!brain.withUnsafeBytes { table.standardize.bfloat16($0.baseAddress!, count, mean, inverse, out.base) })
      }
    }
    // A double that float32 cannot hold is as bad as infinity.
    let huge = [Double](repeating: 1e300, count: count)
    #expect(!huge.withUnsafeBytes { table.standardize.float64($0.baseAddress!, count, mean, inverse, out.base) })
  }

  @Test func stridedViewsReadTheRightElements() throws {
    // [images 2, tokens 3, d 4] of float64 with the first token sliced off and columns reversed.
    let x = (0..<24).map { Double($0) }
    let out = try FloatBuffer(16)
    let scratch = try FloatBuffer(4)
    try x.withUnsafeBytes { bytes in
      let activations = try Activations(
        name: "a", base: bytes.baseAddress! + (4 + 3) * 8, element: .float64, outer: 2, inner: 2, columns: 4,
        outerStride: 12 * 8, innerStride: 4 * 8, columnStride: -8)
      #expect(activations.rows == 4)
      for (row, first) in [(0, 7), (1, 11), (2, 19), (3, 23)] {
        // Not inside #expect: the arrays behind its pointers would be gone by the time it makes the call.
        let finite = activations.standardize(
          row: row, mean: [0, 0, 0, 0], inverseScale: [1, 1, 1, 1], scratch: scratch.base, out: out.base)
        #expect(finite)
        #expect((0..<4).map { out.base[$0] } == (0..<4).map { Float(first - $0) })
      }
    }
  }

  @Test func selectedRowsAreCountedInTheSelectionAndOthersAreRefused() throws {
    // [images 2, tokens 3, d 1] of float32.
    let x = (0..<6).map { Float($0) }
    let out = try FloatBuffer(1)
    func activations(_ rows: [Int64], _ body: (Activations) throws -> Void) throws {
      try x.withUnsafeBytes { bytes in
        try rows.withUnsafeBufferPointer { rows in
          try body(
            try Activations(
              name: "a", base: bytes.baseAddress!, element: .float32, outer: 2, inner: 3, columns: 1, outerStride: 12,
              innerStride: 4, columnStride: 4, selection: .some(rows)))
        }
      }
    }
    try activations([1, 3, 4]) { selected in
      #expect(selected.rows == 3 && selected.storedRows == 6)
      for (row, number) in [(0, 1), (1, 3), (2, 4)] {
        let finite = selected.standardize(row: row, mean: [0], inverseScale: [1], scratch: out.base, out: out.base)
        #expect(finite && out.base[0] == Float(number) && selected.number(ofRow: row) == number)
      }
    }
    try activations([]) { #expect($0.rows == 0) }
    for wrong: [Int64] in [[0, 6], [-1, 2], [2, 2], [3, 1]] {
      #expect(throws: USAEError.self) { try activations(wrong) { _ in } }
    }
  }
}
