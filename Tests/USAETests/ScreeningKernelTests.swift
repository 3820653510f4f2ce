import Testing
import USAEKernelTypes

@testable import USAE

/// The kernels of screening, of every instruction set that this machine has. Their sums are of integers, so they are exact.
@Suite struct ScreeningKernelTests {
  static let names = availableKernels().map { "\($0.name)" }

  static func table(_ name: String) throws -> ScreeningKernels {
    try #require(availableKernels().first { "\($0.name)" == name }).screening
  }

  /// Bytes in a row of four-byte groups.
  static func quads(_ bytes: [Int]) -> [Int32] {
    stride(from: 0, to: bytes.count, by: 4).map { first in
      (0..<4).reduce(Int32(0)) { $0 | Int32(bytes[first + $1] & 0xff) << Int32(8 * $1) }
    }
  }

  static func bytes(_ random: inout TestRandom, _ count: Int, _ range: ClosedRange<Int>) -> [Int] {
    random.row(count).map { max(range.lowerBound, min(range.upperBound, Int($0 * 90) + (range.lowerBound < 0 ? 0 : 128))) }
  }

  @Test(arguments: names, [64, 128, 832])
  func estimatesAreSumsOfBytes(kernels name: String, depth: Int) throws {
    let table = try Self.table(name)
    var random = TestRandom(UInt64(depth))
    let block = table.tokensPerBlock
    let width = table.panelWidth
    // A whole block and a part of one; two panels.
    let count = block + 3, columns = 2 * width
    let tokens = (0..<count).map { $0 == 0 ? [Int](repeating: 255, count: depth) : Self.bytes(&random, depth, 0...255) }
    let concepts = (0..<columns).map { $0 == 0 ? [Int](repeating: -127, count: depth) : Self.bytes(&random, depth, -127...127) }
    let starts = (0..<columns).map { Int32($0 * 1000 - 5000) }
    let tokenScales = random.row(2 * block), scales = random.row(columns), bias = random.row(columns)
    var packedTokens = [Int32](repeating: 0x5a5a_5a5a, count: 2 * block * depth / 4)
    packedTokens.withUnsafeMutableBufferPointer { packed in
      for (t, token) in tokens.enumerated() {
        table.packToken(Self.quads(token), depth / 4, t % block, packed.baseAddress! + t / block * block * depth / 4)
      }
    }
    let packedPanels = stride(from: 0, to: columns, by: width).flatMap { first in
      (0..<depth / 4).flatMap { quad in concepts[first..<first + width].map { Self.quads($0)[quad] } }
    }
    var spare = [Int32](repeating: 0, count: block * width)
    var out = [Float](repeating: -7, count: 2 * block * columns)
    table.screen(depth / 4, packedTokens, count, packedPanels, columns, starts, tokenScales, scales, bias, &out, &spare)
    for t in 0..<2 * block {
      for c in 0..<columns {
        guard t < count else {
          #expect(out[t * columns + c] == -7)
          continue
        }
        let sum = zip(tokens[t], concepts[c]).reduce(Int(starts[c])) { $0 + $1.0 * $1.1 }
        let product = Double(sum) * Double(tokenScales[t]) * Double(scales[c])
        // The sum, the product of scales, their product and the result are rounded.
        #expect(abs(Double(out[t * columns + c]) - product - Double(bias[c])) <= 4 * 0x1p-24 * (abs(product) + abs(Double(bias[c]))))
      }
    }
  }

  @Test(arguments: names, [16, 48, 784])
  func twoDigitsAndWhatTheyMiss(kernels name: String, columns: Int) throws {
    let table = try Self.table(name)
    var random = TestRandom(UInt64(columns))
    for factor in [Float(1), -0.37, 0] {
      var row = random.row(columns)
      row[3] *= 40
      row[5] = 0
      var coarse = [Int8](repeating: 99, count: columns), fine = coarse
      var measures = [Float](repeating: 0, count: 4)
      var sums = [Int32](repeating: 0, count: 2)
      table.quantize(row, columns, factor, &coarse, &fine, &measures, &sums)
      let x = row.map { Double($0 * factor) }
      let scale = Double(measures[0])
      #expect(abs(scale - x.map(abs).max()! / 127) <= 1e-7 * scale)
      let error = zip(x, coarse).map { $0 - scale * Double($1) }
      let rest = zip(error, fine).map { $0 - scale / 254 * Double($1) }
      #expect(error.allSatisfy { abs($0) <= 0.5001 * scale } && rest.allSatisfy { abs($0) <= 0.503 / 254 * scale })
      for (measured, vector) in zip(measures.dropFirst(), [x, error, rest]) {
        // The norm's own rounding, and that of its elements, which are differences of numbers as large as x.
        let norm = vector.reduce(0) { $0 + $1 * $1 }.squareRoot()
        #expect(abs(Double(measured) - norm) <= Double(columns + 8) * 0x1p-24 * (norm + scale))
      }
      #expect(sums == [coarse.reduce(0) { $0 + Int32($1) }, fine.reduce(0) { $0 + Int32($1) }])
    }
  }

  @Test(arguments: names, [64, 192])
  func refinementsAreSumsOfBytes(kernels name: String, depth: Int) throws {
    let table = try Self.table(name)
    var random = TestRandom(UInt64(depth))
    let concepts = (0..<3).map { _ in (Self.bytes(&random, depth, -127...127), Self.bytes(&random, depth, -127...127)) }
    let tokens = (0..<5).map { _ in (Self.bytes(&random, depth, 0...255), Self.bytes(&random, depth, 0...255)) }
    let conceptDigits = concepts.flatMap { Self.quads($0.0) + Self.quads($0.1) }
    let tokenDigits = tokens.flatMap { Self.quads($0.0) + Self.quads($0.1) }
    for pairs: [(Int32, Int32)] in [[], [(2, 3)], [(0, 4), (0, 0)], [(0, 4), (1, 0), (1, 4), (2, 2), (0, 1)]] {
      var out = [Int32](repeating: -7, count: pairs.count + 1)
      table.refine(conceptDigits, tokenDigits, depth / 4, pairs.map(\.0), pairs.map(\.1), pairs.count, &out)
      for (q, pair) in pairs.enumerated() {
        let (coarse, fine) = concepts[Int(pair.0)], (first, second) = tokens[Int(pair.1)]
        #expect(Int(out[q]) == (0..<depth).reduce(0) { $0 + first[$1] * fine[$1] + second[$1] * coarse[$1] })
      }
      #expect(out[pairs.count] == -7)
    }
  }

  @Test(arguments: names)
  func theScanFindsWhatMayBeAboveAFloor(kernels name: String) throws {
    let table = try Self.table(name)
    var random = TestRandom(8)
    for columns in [16, 48, 320] {
      let estimates = random.row(columns)
      let norms = random.row(columns).map(abs), errors = random.row(columns).map(abs), slacks = random.row(columns).map(abs)
      for floor in [Float(0), 1, 1000] {
        var found = [Int32](repeating: -1, count: columns + 16)
        var estimated = [Float](repeating: 0, count: columns + 16), upper = estimated
        let count = table.scan(estimates, columns, norms, errors, slacks, 0.25, 0.5, floor, &found, &estimated, &upper)
        let bounds = (0..<columns).map { 0.25 * norms[$0] + 0.5 * errors[$0] + slacks[$0] }
        // 1e-5: an upper bound so near to the floor may be rounded to the other side.
        let sure = (0..<columns).filter { estimates[$0] + bounds[$0] > floor + 1e-5 }
        let possible = (0..<columns).filter { estimates[$0] + bounds[$0] > floor - 1e-5 }
        let columnsFound = found.prefix(count).map(Int.init)
        #expect(Set(sure).isSubset(of: columnsFound) && Set(columnsFound).isSubset(of: possible))
        #expect(columnsFound == columnsFound.sorted())
        for (i, c) in columnsFound.enumerated() {
          #expect(estimated[i] == estimates[c] && abs(upper[i] - (estimates[c] + bounds[c])) < 1e-5)
        }
      }
    }
  }

  /// Also that of the next better kernels, where those have a fused multiply-add.
  @Test(arguments: names, [16, 32, 112])
  func chainsHaveTheBitsOfTheProduct(kernels name: String, depth: Int) throws {
    let whole = try #require(availableKernels().first { "\($0.name)" == name })
    var random = TestRandom(UInt64(depth))
    let width = whole.panelWidth
    let x = random.row(depth), scales = random.row(width), bias = random.row(width)
    let concepts = random.rows(width, depth)
    let packedToken = try FloatBuffer(depth * whole.tokensPerBlock), panel = try FloatBuffer(depth * width)
    whole.packTokens(x, depth, 1, depth, packedToken.base)
    whole.packPanel(concepts.flatMap { $0 }, depth, width, depth, scales, panel.base)
    var product = [Float](repeating: 0, count: width)
    whole.product(depth, packedToken.base, panel.base, bias, 1, &product, width)
    for count in [0, 1, 3, 4, 5, 16, 17, 33] {
      let indices = (0..<count).map { Int32(($0 * 5 + 3) % width) }
      var out = [Float](repeating: -7, count: count + 1)
      for following in [0, 20] {
        let list = indices + (0..<following).map { Int32($0 % width) }
        whole.screening.chains(x, concepts.flatMap { $0 }, depth, scales, bias, list, count, following, &out)
        #expect(Array(out.prefix(count)) == indices.map { product[Int($0)] })
        #expect(out[count] == -7)
      }
    }
  }

  @Test(arguments: names, [1, 7, 16, 33, 500])
  func theFloorIsTheSmallestOfTheLargest(kernels name: String, wanted: Int) throws {
    let table = try Self.table(name)
    var random = TestRandom(UInt64(wanted))
    for count in [0, 1, 15, 16, 40, 600] {
      for kind in 0..<4 {
        var values = random.row(count)
        if kind == 1 { values = values.map { ($0 * 2).rounded() / 2 } }  // many ties
        if kind == 2 { values = values.map { -abs($0) } }
        if kind == 3 { values = values.map { abs($0) * 1e30 + 1e-30 } }
        values += [Float](repeating: 9, count: 16)
        let floor = table.floor(&values, count, wanted)
        let positive = values.prefix(count).filter { $0 > 0 }.sorted(by: >)
        guard positive.count >= wanted else {
          #expect(floor == 0)
          continue
        }
        #expect(floor == positive[wanted - 1])
      }
    }
  }
}
