import Testing
import KernelTypes

@testable import USAE

/// Every kernel of every instruction set that this machine has, against the reference.
///
/// Tolerances: a float32 sum of n terms in any order errs by at most n * 2^-24 times the sum of magnitudes.
@Suite struct KernelTests {
  static let columnCounts = [16, 32, 48, 64, 80, 128, 144, 256, 784]

  static func tolerance(_ terms: Int, _ magnitude: Double) -> Double { Double(terms + 8) * 0x1p-24 * (magnitude + 1) }

  @Test(arguments: availableKernels().map { "\($0.name)" }, [1, 2, 5, 16, 33, 100])
  func productsAreExactDotProducts(kernels name: String, depth: Int) throws {
    let product = try #require(availableKernels().first { "\($0.name)" == name }).product
    let width = product.panelWidth
    var random = TestRandom(UInt64(depth))
    for rows in 1...product.tokensPerBlock {
      let tokens = random.rows(rows, depth)
      let concepts = random.rows(width, depth)
      let bias = random.row(width)
      let packedTokens = try FloatBuffer(depth * product.tokensPerBlock)
      let packedPanel = try FloatBuffer(depth * width)
      let out = try FloatBuffer(product.tokensPerBlock * width)
      out.fill(-7)
      product.packTokens(tokens.flatMap { $0 }, depth, rows, depth, packedTokens.base)
      product.packPanel(concepts.flatMap { $0 }, depth, width, depth, nil, packedPanel.base)
      product.block(depth, packedTokens.base, packedPanel.base, bias, rows, out.base, width)
      let expected = Reference.product(tokens, concepts, bias)
      for r in 0..<rows {
        for c in 0..<width {
          let magnitude = Reference.dot(tokens[r].map(abs), concepts[c].map(abs))
          #expect(abs(Double(out.base[r * width + c]) - expected[r][c]) <= Self.tolerance(depth, magnitude))
          if name != "portable" { #expect(out.base[r * width + c] == exactProduct(tokens[r], concepts[c], bias[c])) }
        }
      }
      for unused in rows * width..<out.count { #expect(out.base[unused] == -7) }
    }
  }

  /// Also where the list has capacity for one panel at a time.
  @Test(arguments: availableKernels().map { "\($0.name)" }, [1, 16, 70])
  func pairsAboveAFloorHaveTheNumbersOfTheProduct(kernels name: String, depth: Int) throws {
    let product = try #require(availableKernels().first { "\($0.name)" == name }).product
    let block = product.tokensPerBlock, width = product.panelWidth, columns = 3 * width
    var random = TestRandom(UInt64(depth))
    let panels = try buffer(random.row(columns * depth)), bias = try buffer(random.row(columns))
    for count in [1, block, 2 * block + 1] {
      let tokens = try buffer(random.row((count + block - 1) / block * block * depth))
      let thresholds = try buffer((0..<count).map { [Float(0), 1, -.infinity, .infinity][$0 % 4] })
      var expected: [Int: Float] = [:]
      var out = [Float](repeating: 0, count: block * width)
      for first in stride(from: 0, to: count, by: block) {
        for column in stride(from: 0, to: columns, by: width) {
          product.block(
            depth, tokens.base + first * depth, panels.base + column * depth, bias.base + column, block, &out, width)
          for t in first..<min(count, first + block) {
            for c in 0..<width where out[(t - first) * width + c] > thresholds.base[t] {
              expected[t << 10 | (column + c)] = out[(t - first) * width + c]
            }
          }
        }
      }
      for capacity in [count * columns + 16, count * width + 16] {
        let pairs = try AlignedBuffer<Int32>(count * (columns + width) + 16), numbers = try FloatBuffer(pairs.count)
        var arguments = ProductArguments(
          depth: depth, columns: columns, count: count, tokens: tokens.base, panels: panels.base, bias: bias.base,
          thresholds: thresholds.base,
          pairs: FoundPairs(pairs: pairs.base, conceptBits: 10, numbers: numbers.base, capacity: capacity))
        while arguments.pairs.nextColumn < columns {
          let before = arguments.pairs.nextColumn
          product.pairsAbove(&arguments)
          #expect(arguments.pairs.nextColumn > before && arguments.pairs.found <= arguments.pairs.capacity)
          arguments.pairs.capacity = arguments.pairs.found + count * width + 16
        }
        let found = (0..<arguments.pairs.found).map { (Int(pairs.base[$0]), numbers.base[$0]) }
        #expect(Dictionary(uniqueKeysWithValues: found) == expected)
        for t in 0..<count {
          let concepts = found.map(\.0).filter { $0 >> 10 == t }
          #expect(concepts == concepts.sorted())
        }
      }
    }
  }

  private func exactProduct(_ x: [Float], _ w: [Float], _ bias: Float) -> Float {
    zip(x, w).reduce(bias) { $0.addingProduct($1.0, $1.1) }
  }

  @Test(arguments: availableKernels().map { "\($0.name)" })
  func panelsBeyondTheConceptsAreZero(kernels name: String) throws {
    let product = try #require(availableKernels().first { "\($0.name)" == name }).product
    let width = product.panelWidth
    let panel = try FloatBuffer(3 * width)
    panel.fill(9)
    let scales: [Float] = Array(repeating: 2, count: width)
    product.packPanel([1, 2, 3, 4, 5, 6], 3, 2, 3, scales, panel.base)
    for p in 0..<3 {
      #expect(panel.base[p * width] == 2 * Float(p + 1))
      #expect(panel.base[p * width + 1] == 2 * Float(p + 4))
      for c in 2..<width { #expect(panel.base[p * width + c] == 0) }
    }
  }

  @Test(arguments: availableKernels().map { "\($0.name)" }, [1, 2, 7, 16, 32, 300])
  func selectionKeepsTheLargestAndBreaksTiesByColumn(kernels name: String, k: Int) throws {
    let table = try #require(availableKernels().first { "\($0.name)" == name })
    var random = TestRandom(UInt64(k))
    for columns in [16, 48, 320, 1024] {
      for kind in 0..<4 {
        var row = random.row(columns)
        if kind == 1 { row = row.map { ($0 * 2).rounded() / 2 } }  // many ties
        if kind == 2 { row = row.map { -abs($0) } }  // nothing to choose
        if kind == 3 { row = row.map { _ in 1 } }
        let keys = try AlignedBuffer<UInt64>(columns + selectionScratch)
        let count = table.selection.scan(row, columns, 0, keys.base)
        #expect(count == row.filter { $0 > 0 }.count)
        table.selection.partition(keys.base, count, k)
        let expected = Reference.topK(row, k: k)
        #expect(Set((0..<min(count, k)).map { Int(column(ofKey: keys.base[$0])) }) == Set(expected))
        let kept = table.selection.keepLargest(keys.base, table.selection.scan(row, columns, 0, keys.base), k)
        #expect(kept == min(count, k))
        #expect((0..<kept).map { Int(column(ofKey: keys.base[$0])) } == expected)
        #expect((0..<kept).map { value(ofKey: keys.base[$0]) } == expected.map { row[$0] })
      }
    }
  }

  @Test(arguments: availableKernels().map { "\($0.name)" })
  func scanTakesWhatIsStrictlyAboveTheThreshold(kernels name: String) throws {
    let table = try #require(availableKernels().first { "\($0.name)" == name })
    var row = [Float](repeating: 0.5, count: 16)
    row[3] = 0.50000006
    row[9] = .infinity
    let keys = try AlignedBuffer<UInt64>(32)
    #expect(table.selection.scan(row, 16, 0.5, keys.base) == 2)
    #expect(column(ofKey: keys.base[0]) == 3)
    #expect(column(ofKey: keys.base[1]) == 9)
  }

  @Test(arguments: availableKernels().map { "\($0.name)" }, [1, 7, 16, 33, 500])
  func theSmallestOfTheLargest(kernels name: String, wanted: Int) throws {
    let table = try #require(availableKernels().first { "\($0.name)" == name })
    var random = TestRandom(UInt64(wanted))
    for count in [0, 1, 15, 16, 40, 600] {
      for kind in 0..<4 {
        var values = random.row(count)
        if kind == 1 { values = values.map { ($0 * 2).rounded() / 2 } }  // many ties
        if kind == 2 { values = values.map { -abs($0) } }
        if kind == 3 { values = values.map { abs($0) * 1e30 + 1e-30 } }
        values += [Float](repeating: 9, count: 16)
        let smallest = table.selection.smallestOfLargest(&values, count, wanted)
        let positive = values.prefix(count).filter { $0 > 0 }.sorted(by: >)
        guard positive.count >= wanted else {
          #expect(smallest == 0)
          continue
        }
        #expect(smallest == positive[wanted - 1])
      }
    }
  }

  @Test(arguments: availableKernels().map { "\($0.name)" }, columnCounts)
  func rowKernels(kernels name: String, columns: Int) throws {
    let table = try #require(availableKernels().first { "\($0.name)" == name })
    var random = TestRandom(UInt64(columns))
    for count in [0, 1, 3, 33] {
      let rows = random.rows(7, columns)
      let flat = rows.flatMap { $0 }
      let indices = (0..<count).map { Int32($0 * 5 % 7) }
      let coefficients = random.row(count)
      let out = try FloatBuffer(columns)
      out.fill(4)
      table.rows.weightedSum(flat, columns, indices, coefficients, count, columns, out.base)
      let expected = Reference.weightedRows(rows, indices.map(Int.init), coefficients)
      for c in 0..<columns { #expect(abs(Double(out.base[c]) - expected[c]) <= Self.tolerance(count, 40)) }

      let vector = random.row(columns)
      let products = try FloatBuffer(count)
      table.rows.dots(vector, flat, columns, indices, count, columns, products.base)
      for q in 0..<count {
        let row = rows[Int(indices[q])]
        let magnitude = Reference.dot(vector.map(abs), row.map(abs))
        #expect(abs(Double(products.base[q]) - Reference.dot(vector, row)) <= Self.tolerance(columns, magnitude))
        #expect(products.base[q] == table.rows.dot(vector, row, columns))
      }
    }
  }

  @Test(arguments: availableKernels().map { "\($0.name)" }, columnCounts)
  func elementwiseKernels(kernels name: String, columns: Int) throws {
    let table = try #require(availableKernels().first { "\($0.name)" == name })
    var random = TestRandom(UInt64(columns))
    let x = random.row(columns)
    let y = random.row(columns)
    let out = try FloatBuffer(columns)
    for (which, a) in [(absoluteLoss, Float(0.25)), (squaredLoss, Float(-3))] {
      let residual = x.enumerated().map { $0.offset == 1 ? 0 : $0.element }  // |r| has slope 0 at 0
      let magnitude = Reference.loss(which, residual)
      #expect(abs(Double(table.training.loss(which, residual, columns)) - magnitude) <= Self.tolerance(columns, magnitude))
      table.training.slope(which, a, residual, columns, out.base)
      for c in 0..<columns { #expect(out.base[c] == Reference.slope(which, a, residual[c])) }
    }
    out.base.update(from: y, count: columns)
    table.rows.subtractFrom(x, columns, out.base)
    for c in 0..<columns { #expect(out.base[c] == x[c] - y[c]) }
    out.base.update(from: y, count: columns)
    table.rows.addScaled(0.3, x, columns, out.base)
    for c in 0..<columns { #expect(abs(out.base[c] - (y[c] + 0.3 * x[c])) <= 1e-6 * (abs(y[c]) + abs(x[c]))) }
  }

  @Test(arguments: availableKernels().map { "\($0.name)" })
  func adamIsTheWrittenFormula(kernels name: String) throws {
    let table = try #require(availableKernels().first { "\($0.name)" == name })
    let columns = 32
    var random = TestRandom(5)
    let g = random.row(columns), m0 = random.row(columns), p0 = random.row(columns)
    let v0 = random.row(columns).map(abs)
    let m = try FloatBuffer(columns), v = try FloatBuffer(columns), p = try FloatBuffer(columns)
    m.base.update(from: m0, count: columns)
    v.base.update(from: v0, count: columns)
    p.base.update(from: p0, count: columns)
    let constants = AdamConstants(
      beta1: 0.9, beta2: 0.999, stepSize: 0.02, inverseRootCorrection: 1.7, epsilon: 1e-3, keep: 0.99, gradientScale: 0.5)
    withUnsafePointer(to: constants) { table.training.adam($0, g, m.base, v.base, p.base, columns) }
    for c in 0..<columns {
      let gradient = Double(g[c]) * 0.5
      let first = 0.9 * Double(m0[c]) + 0.1 * gradient
      let second = 0.999 * Double(v0[c]) + 0.001 * gradient * gradient
      let parameter = 0.99 * Double(p0[c]) - 0.02 * first / (second.squareRoot() * 1.7 + 1e-3)
      // Six roundings on numbers of these sizes; 1 - beta2 in float32 is off by 2^-24 / 0.001.
      #expect(abs(Double(m.base[c]) - first) < 1e-6)
      #expect(abs(Double(v.base[c]) - second) < 2e-6)
      #expect(abs(Double(p.base[c]) - parameter) < 2e-6 * (1 + abs(parameter)))
    }
  }
}
