import Testing
import KernelTypes

@testable import USAE

/// The kernels of screening, of every instruction set that this machine has. Their sums are of integers, so they are exact.
@Suite struct ScreeningKernelTests {
  static let names = availableKernels().map { "\($0.name)" }

  static func table(_ name: String) throws -> ScreeningKernels {
    try #require(availableKernels().first { "\($0.name)" == name }).screening
  }

  /// Bytes as groups of four.
  static func groups(_ bytes: [Int]) -> [Int32] {
    stride(from: 0, to: bytes.count, by: 4).map { (first: Int) -> Int32 in
      var group: UInt32 = 0
      for place in 0..<4 { group |= UInt32(bytes[first + place] & 0xff) << UInt32(8 * place) }
      return Int32(bitPattern: group)
    }
  }

  /// Int8 parts, which are from -127 to 127.
  static func bytes(_ random: inout TestRandom, _ count: Int, offset: Int = 0) -> [Int] {
    random.row(count).map { max(-127, min(127, Int($0 * 90))) + offset }
  }

  /// A search by definition, among tokens and concepts of bytes.
  struct Search {
    let tokens, concepts: [[Int]]
    let corrections: [Int32]
    let tokenScales, scales, bias, norms, errors, slacks, ofNorm, ofError: [Float]

    init(_ random: inout TestRandom, tokens count: Int, concepts columns: Int, depth: Int, tokenOffset offset: Int) {
      // Extremes too, whose sums must not saturate.
      var some = random
      tokens = (0..<count).map { $0 == 0 ? [Int](repeating: 127 + offset, count: depth) : bytes(&some, depth, offset: offset) }
      concepts = (0..<columns).map { $0 == 0 ? [Int](repeating: -127, count: depth) : bytes(&some, depth) }
      random = some
      corrections = (0..<columns).map { Int32($0 * 1000 - 5000) }
      tokenScales = random.row(count).map { 1e-3 * $0 }
      (scales, bias) = (random.row(columns), random.row(columns))
      (norms, errors) = (random.row(columns).map(abs), random.row(columns).map(abs))
      slacks = random.row(columns).map(abs)
      (ofNorm, ofError) = (random.row(count).map(abs), random.row(count).map(abs))
    }

    func estimate(_ t: Int, _ c: Int) -> (value: Double, error: Double) {
      let sum = zip(tokens[t], concepts[c]).reduce(Int(corrections[c])) { $0 + $1.0 * $1.1 }
      let product = Double(sum) * Double(tokenScales[t]) * Double(scales[c])
      // The sum, the product of scales, their product and the result are rounded.
      return (product + Double(bias[c]), 4 * 0x1p-24 * (abs(product) + abs(Double(bias[c]))))
    }

    func bound(_ t: Int, _ c: Int) -> Double {
      Double(slacks[c]) + Double(ofNorm[t]) * Double(norms[c]) + Double(ofError[t]) * Double(errors[c])
    }

    /// What the kernel finds: [token: [(concept, estimate)]].
    func run(_ table: ScreeningKernels, thresholds: [Float]) throws -> [[(concept: Int, estimate: Float)]] {
      let block = table.tokensPerBlock, width = table.panelWidth, groups = tokens[0].count / 4
      let packed = try AlignedBuffer<Int32>((tokens.count + block - 1) / block * block * groups)
      packed.fill(0x5a5a_5a5a)
      for (t, token) in tokens.enumerated() {
        table.packToken(ScreeningKernelTests.groups(token), groups, t % block, packed.base + t / block * block * groups)
      }
      let panels = stride(from: 0, to: concepts.count, by: width).flatMap { first in
        (0..<groups).flatMap { group in concepts[first..<first + width].map { ScreeningKernelTests.groups($0)[group] } }
      }
      let capacity = tokens.count * (concepts.count + width) + 16
      let pairs = try AlignedBuffer<Int32>(capacity), estimates = try FloatBuffer(capacity)
      let scratch = try AlignedBuffer<Int32>(block * width)
      let bits: Int32 = 9
      let integers = try [panels, corrections].map { try buffer($0) }
      let floats = try [scales, bias, norms, errors, slacks, tokenScales, ofNorm, ofError, thresholds].map { try buffer($0) }
      let most = tokens.count * width + 16
      let count = withExtendedLifetime((integers, floats, packed, scratch)) {
        let f = floats.map { UnsafePointer($0.base) }
        let result = FoundPairs(pairs: pairs.base, conceptBits: bits, numbers: estimates.base, capacity: most)
        var arguments = ScreenArguments(
          groups: groups, columns: concepts.count, panels: integers[0].base, corrections: integers[1].base,
          scales: f[0], bias: f[1],
          norms: f[2], errors: f[3], slacks: f[4], count: tokens.count, tokens: packed.base, tokenScales: f[5],
          factorsOfNorm: f[6], factorsOfError: f[7], thresholds: f[8], pairs: result, scratch: scratch.base)
        while arguments.pairs.nextColumn < concepts.count {  // a panel at a time
          let before = arguments.pairs.nextColumn
          table.screen(&arguments)
          #expect(arguments.pairs.nextColumn > before && arguments.pairs.found <= arguments.pairs.capacity)
          arguments.pairs.capacity = arguments.pairs.found + most
        }
        return arguments.pairs.found
      }
      var found = [[(concept: Int, estimate: Float)]](repeating: [], count: tokens.count)
      for i in 0..<count {
        found[Int(pairs.base[i] >> bits)].append((Int(pairs.base[i] & 511), estimates.base[i]))
      }
      return found
    }
  }

  /// Whole blocks of tokens and parts of one, and more than one panel.
  @Test(arguments: names, [64, 128, 832])
  func searchesFindWhatMayBeAboveAFloor(kernels name: String, depth: Int) throws {
    let table = try Self.table(name)
    var random = TestRandom(UInt64(depth))
    for count in [1, table.tokensPerBlock, table.tokensPerBlock + 3] {
      let search = Search(
        &random, tokens: count, concepts: 3 * table.panelWidth, depth: depth, tokenOffset: Int(table.tokenOffset))
      for threshold in [-Float.infinity, 0, 1, .infinity] {
        let thresholds = (0..<count).map { $0 % 5 == 4 ? 2 : threshold }
        let found = try search.run(table, thresholds: thresholds)
        for t in 0..<count {
          #expect(found[t].map(\.concept) == found[t].map(\.concept).sorted())
          let known = Dictionary(uniqueKeysWithValues: found[t].map { ($0.concept, $0.estimate) })
          for c in 0..<search.concepts.count {
            let estimate = search.estimate(t, c)
            let upper = estimate.value + search.bound(t, c)
            // An upper bound this near to the threshold may be rounded to its other side.
            let near = estimate.error + 1e-5 * (1 + abs(upper))
            if let value = known[c] {
              #expect(abs(Double(value) - estimate.value) <= estimate.error && upper > Double(thresholds[t]) - near)
            } else {
              #expect(upper <= Double(thresholds[t]) + near)
            }
          }
        }
      }
    }
  }

  @Test(arguments: names)
  func upperBoundsAreEstimatesAndWhatTheyMayMiss(kernels name: String) throws {
    let table = try Self.table(name)
    var random = TestRandom(8)
    let norms = random.row(50), errors = random.row(50), slacks = random.row(50)
    for count in [0, 1, 16, 37] {
      let concepts = (0..<count).map { Int32(($0 * 7 + 3) % 50) }, estimates = random.row(count)
      var out = [Float](repeating: -7, count: count + 1)
      table.upperBounds(concepts, estimates, count, norms, errors, slacks, 0.25, 0.5, &out)
      for (i, c) in concepts.map(Int.init).enumerated() {
        #expect(abs(out[i] - (estimates[i] + 0.25 * norms[c] + 0.5 * errors[c] + slacks[c])) < 1e-5)
      }
      #expect(out[count] == -7)
    }
  }

  @Test(arguments: names, [16, 48, 784])
  func highAndLowPartsAndWhatTheyMiss(kernels name: String, columns: Int) throws {
    let table = try Self.table(name)
    var random = TestRandom(UInt64(columns))
    for factor in [Float(1), -0.37, 0] {
      var row = random.row(columns)
      row[3] *= 40
      row[5] = 0
      var high = [Int8](repeating: 99, count: columns), low = high
      var measures = [Float](repeating: 0, count: 4)
      var sums = [Int32](repeating: 0, count: 2)
      table.quantize(row, columns, factor, &high, &low, &measures, &sums)
      let x = row.map { Double($0 * factor) }
      let scale = Double(measures[0])
      #expect(abs(scale - x.map(abs).max()! / 127) <= 1e-7 * scale)
      let error = zip(x, high).map { $0 - scale * Double($1) }
      let rest = zip(error, low).map { $0 - scale / 254 * Double($1) }
      #expect(error.allSatisfy { abs($0) <= 0.5001 * scale } && rest.allSatisfy { abs($0) <= 0.503 / 254 * scale })
      for (measured, vector) in zip(measures.dropFirst(), [x, error, rest]) {
        // The norm's own rounding, and that of its elements, which are differences of numbers as large as x.
        let norm = vector.reduce(0) { $0 + $1 * $1 }.squareRoot()
        #expect(abs(Double(measured) - norm) <= Double(columns + 8) * 0x1p-24 * (norm + scale))
      }
      #expect(sums == [high.reduce(0) { $0 + Int32($1) }, low.reduce(0) { $0 + Int32($1) }])
    }
  }

  @Test(arguments: names, [64, 192])
  func refinementsAreSumsOfBytes(kernels name: String, depth: Int) throws {
    let table = try Self.table(name)
    var random = TestRandom(UInt64(depth))
    let offset = Int(table.tokenOffset)
    let concepts = (0..<3).map { _ in (Self.bytes(&random, depth), Self.bytes(&random, depth)) }
    let tokens = (0..<5).map { _ in
      (Self.bytes(&random, depth, offset: offset), Self.bytes(&random, depth, offset: offset))
    }
    let conceptParts = concepts.flatMap { Self.groups($0.0) + Self.groups($0.1) }
    let tokenParts = tokens.flatMap { Self.groups($0.0) + Self.groups($0.1) }
    for pairs: [(Int32, Int32)] in [[], [(2, 3)], [(0, 4), (0, 0)], [(0, 4), (1, 0), (1, 4), (2, 2), (0, 1)]] {
      var out = [Int32](repeating: -7, count: pairs.count + 1)
      table.refine(conceptParts, tokenParts, depth / 4, pairs.map(\.0), pairs.map(\.1), pairs.count, &out)
      for (q, pair) in pairs.enumerated() {
        let (high, low) = concepts[Int(pair.0)], (tokenHigh, tokenLow) = tokens[Int(pair.1)]
        #expect(Int(out[q]) == (0..<depth).reduce(0) { $0 + tokenHigh[$1] * low[$1] + tokenLow[$1] * high[$1] })
      }
      #expect(out[pairs.count] == -7)
    }
  }

  /// Also the bits of the next better kernels, where those have a fused multiply-add.
  @Test(arguments: names, [16, 32, 112])
  func exactProductsHaveTheBitsOfTheProduct(kernels name: String, depth: Int) throws {
    let whole = try #require(availableKernels().first { "\($0.name)" == name })
    var random = TestRandom(UInt64(depth))
    let width = whole.product.panelWidth
    let x = random.row(depth), scales = random.row(width), bias = random.row(width)
    let concepts = random.rows(width, depth)
    let packedToken = try FloatBuffer(depth * whole.product.tokensPerBlock), panel = try FloatBuffer(depth * width)
    whole.product.packTokens(x, depth, 1, depth, packedToken.base)
    whole.product.packPanel(concepts.flatMap { $0 }, depth, width, depth, scales, panel.base)
    var product = [Float](repeating: 0, count: width)
    whole.product.block(depth, packedToken.base, panel.base, bias, 1, &product, width)
    for count in [0, 1, 3, 4, 5, 16, 17, 33] {
      let indices = (0..<count).map { Int32(($0 * 5 + 3) % width) }
      var out = [Float](repeating: -7, count: count + 1)
      for following in [0, 20] {
        let list = indices + (0..<following).map { Int32($0 % width) }
        whole.screening.exactProducts(x, concepts.flatMap { $0 }, depth, scales, bias, list, count, following, &out)
        #expect(Array(out.prefix(count)) == indices.map { product[Int($0)] })
        #expect(out[count] == -7)
      }
    }
  }
}
