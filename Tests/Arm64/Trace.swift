import CTrace
import KernelTypes

// What every kernel makes of the same numbers, a line for each: its name and a hash of the bits. tools/test_arm64.sh compiles
// this and the kernels as one module of Embedded Swift for two processors and compares what they print.

@main
struct Main {
  static func main() {
    let table = kernelTable(name: "traced")
    Trace.products(table.product)
    Trace.selection(table.selection)
    Trace.rows(table.rows)
    Trace.elements(table)
    Trace.standardized(table.standardize)
    Trace.screening(table.screening)
    Trace.signs(table.signs)
    Trace.skipping(table.skipping)
    Trace.transposes(table.transpose)
    Trace.fourier(table.fourier)
    Trace.images(table.images)
  }
}

/// FNV-1a over bytes, written with the name of what was hashed.
private struct Hash {
  var value: UInt64 = 0xcbf2_9ce4_8422_2325

  mutating func add<T>(_ place: UnsafeMutablePointer<T>, _ count: Int) {
    let bytes = UnsafeMutableRawPointer(place)
    for i in 0..<count * MemoryLayout<T>.stride {
      value = (value ^ UInt64(bytes.load(fromByteOffset: i, as: UInt8.self))) &* 0x100_0000_01b3
    }
  }

  mutating func add(_ number: Int) {
    var number = Int64(number)
    add(&number, 1)
  }

  func write(_ name: StaticString) { trace_line(name.utf8Start, value) }
}

/// SplitMix64, so that both processors are given the same.
private struct Random {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }

  /// From -1 to 1.
  mutating func float() -> Float { Float(Int32(truncatingIfNeeded: next() >> 40) - (1 << 23)) * 0x1p-23 }
  mutating func below(_ limit: Int) -> Int { Int(next() >> 33) % limit }

  mutating func floats(_ count: Int) -> Floats {
    let place = zeros(count)
    for i in 0..<count { place[i] = float() }
    return place
  }

  mutating func positives(_ count: Int) -> Floats {
    let place = floats(count)
    for i in 0..<count { place[i] = place[i].magnitude + 0x1p-20 }
    return place
  }

  /// With about half of the elements 0.
  mutating func sparse(_ count: Int) -> Floats {
    let place = floats(count)
    for i in 0..<count where next() >> 63 == 0 { place[i] = 0 }
    return place
  }

  mutating func indices(_ count: Int, below limit: Int) -> UnsafeMutablePointer<Int32> {
    let place = integers(count)
    for i in 0..<count { place[i] = Int32(below(limit)) }
    return place
  }

  /// Four int8 parts in each, from -127 to 127, and an offset added to them.
  mutating func parts(_ groups: Int, offset: Int32 = 0) -> UnsafeMutablePointer<Int32> {
    let place = integers(groups)
    let bytes = UnsafeMutableRawPointer(place)
    for i in 0..<4 * groups {
      bytes.storeBytes(of: Int8(truncatingIfNeeded: below(255) - 127 + Int(offset)), toByteOffset: i, as: Int8.self)
    }
    return place
  }
}

// Memory is not freed, since the program ends soon.
private func zeros(_ count: Int) -> Floats {
  let place = Floats.allocate(capacity: count)
  for i in 0..<count { place[i] = 0 }
  return place
}

private func integers(_ count: Int) -> UnsafeMutablePointer<Int32> {
  let place = UnsafeMutablePointer<Int32>.allocate(capacity: count)
  for i in 0..<count { place[i] = 0 }
  return place
}

private enum Trace {
  static func products(_ table: ProductKernels) {
    var random = Random(state: 1)
    let tokens = 3 * table.tokensPerBlock, concepts = 4 * table.panelWidth
    for depth in [16, 112, 400] {
      let x = random.floats(tokens * depth), weights = random.floats(concepts * depth)
      let scales = random.positives(concepts), bias = random.floats(concepts), thresholds = random.positives(tokens)
      // A concept of nothing but zeros, as those behind the last one are, is at this threshold and not above it.
      for p in 0..<depth { weights[5 * depth + p] = 0 }
      (bias[5], thresholds[1]) = (0, 0)
      let packed = zeros(tokens * depth), panels = zeros(concepts * depth), out = zeros(tokens * concepts)
      for first in stride(from: 0, to: tokens, by: table.tokensPerBlock) {
        table.packTokens(x + first * depth, depth, table.tokensPerBlock, depth, packed + first * depth)
      }
      for first in stride(from: 0, to: concepts, by: table.panelWidth) {
        table.packPanel(weights + first * depth, depth, table.panelWidth, depth, scales + first, panels + first * depth)
        for token in stride(from: 0, to: tokens, by: table.tokensPerBlock) {
          table.block(
            depth, packed + token * depth, panels + first * depth, bias + first, table.tokensPerBlock,
            out + token * concepts + first, concepts)
        }
      }
      var product = Hash()
      product.add(out, tokens * concepts)
      product.write("product")
      let capacity = tokens * concepts + 16
      let found = FoundPairs(pairs: integers(capacity), conceptBits: 10, numbers: zeros(capacity), capacity: capacity)
      var search = ProductArguments(
        depth: depth, columns: concepts, count: tokens - 1, tokens: packed, panels: panels, bias: bias, thresholds: thresholds,
        pairs: found)
      table.pairsAbove(&search)
      write("pairsAbove", search.pairs)
    }
  }

  static func write(_ name: StaticString, _ pairs: FoundPairs) {
    var hash = Hash()
    hash.add(pairs.found)
    hash.add(pairs.pairs, pairs.found)
    hash.add(pairs.numbers, pairs.found)
    hash.write(name)
  }

  static func selection(_ table: SelectionKernels) {
    var random = Random(state: 2)
    var scanned = Hash(), largest = Hash(), parted = Hash()
    for (columns, wanted) in [(16, 3), (160, 32), (1024, 32), (2048, 300), (2048, 2000)] {
      for round in 0..<3 {
        let row = random.floats(columns)
        if round == 1 { for c in 0..<columns { row[c] = (row[c] * 4).rounded() } }  // many ties
        let keys = UnsafeMutablePointer<UInt64>.allocate(capacity: columns + selectionScratch)
        let threshold: Float = round == 2 ? 0.7 : 0
        var count = table.scan(row, columns, threshold, keys)
        scanned.add(keys, count)
        let kept = table.keepLargest(keys, count, wanted)
        largest.add(keys, kept)
        count = table.scan(row, columns, threshold, keys)
        table.partition(keys, count, wanted < count ? wanted : count)
        parted.add(keys, count)
      }
    }
    scanned.write("scan")
    largest.write("keepLargest")
    parted.write("partition")
    var smallest = Hash()
    let values = random.floats(600), out = zeros(616)
    for wanted in [1, 7, 33, 500] {
      for i in 0..<600 { out[i] = values[i] }
      var value = table.smallestOfLargest(out, 600, wanted)
      smallest.add(&value, 1)
    }
    smallest.write("smallestOfLargest")
  }

  static func rows(_ table: RowKernels) {
    var random = Random(state: 3)
    var weighted = Hash(), dots = Hash()
    for columns in [16, 112, 400] {
      let rows = random.floats(50 * columns), vector = random.floats(columns)
      for count in [0, 1, 5, 33] {
        let indices = random.indices(count, below: 50), out = zeros(columns + count)
        table.weightedSum(rows, columns, indices, random.floats(count), count, columns, out)
        weighted.add(out, columns)
        table.dots(vector, rows, columns, indices, count, columns, out)
        dots.add(out, count)
      }
      var one = table.dot(vector, rows, columns)
      dots.add(&one, 1)
    }
    weighted.write("weightedSum")
    dots.write("dots")
  }

  static func elements(_ table: KernelTable) {
    var random = Random(state: 4)
    let columns = 208
    let x = random.floats(columns), y = random.floats(columns)
    x[3] = 0
    var sums = Hash()
    table.rows.addScaled(0.37, x, columns, y)
    sums.add(y, columns)
    table.rows.subtractFrom(x, columns, y)
    sums.add(y, columns)
    sums.write("addScaled, subtractFrom")
    var losses = Hash()
    for kind in [absoluteLoss, squaredLoss] {
      var loss = table.training.loss(kind, x, columns)
      losses.add(&loss, 1)
      table.training.slope(kind, 0.21, x, columns, y)
      losses.add(y, columns)
    }
    losses.write("loss, slope")
    var constants = AdamConstants(
      beta1: 0.9, beta2: 0.999, stepSize: 3e-3, inverseRootCorrection: 4.2, epsilon: 1e-8, keep: 0.9999, gradientScale: 0.6)
    let first = random.floats(columns), second = random.positives(columns), parameter = random.floats(columns)
    var adam = Hash()
    for _ in 0..<3 { table.training.adam(&constants, x, first, second, parameter, columns) }
    for place in [first, second, parameter] { adam.add(place, columns) }
    adam.write("adam")
  }

  static func standardized(_ table: StandardizationKernels) {
    var random = Random(state: 5)
    let count = 77
    let mean = random.floats(count), inverse = random.positives(count), out = zeros(count)
    let halves = UnsafeMutablePointer<UInt16>.allocate(capacity: count)
    let doubles = UnsafeMutablePointer<Double>.allocate(capacity: count)
    let floats = random.floats(count)
    for i in 0..<count {
      halves[i] = UInt16(truncatingIfNeeded: random.next())
      if halves[i] & 0x7c00 == 0x7c00 { halves[i] ^= 0x0400 }  // no infinities: the bits of a NaN are not the same everywhere
      doubles[i] = Double(random.float()) / 3
    }
    var hash = Hash()
    hash.add(table.float32(floats, count, mean, inverse, out) ? 1 : 0)
    hash.add(out, count)
    hash.add(table.float16(halves, count, mean, inverse, out) ? 1 : 0)
    hash.add(out, count)
    for i in 0..<count where halves[i] & 0x7f80 == 0x7f80 { halves[i] ^= 0x4000 }
    hash.add(table.bfloat16(halves, count, mean, inverse, out) ? 1 : 0)
    hash.add(out, count)
    hash.add(table.float64(doubles, count, mean, inverse, out) ? 1 : 0)
    hash.add(out, count)
    floats[70] = .infinity
    hash.add(table.float32(floats, count, mean, inverse, out) ? 1 : 0)
    hash.write("standardize")
  }

  static func screening(_ table: ScreeningKernels) {
    var random = Random(state: 6)
    var quantized = Hash()
    let columns = 192
    for factor in [Float(1), -0.37, 1e-12, 2] {
      let row = random.floats(columns)
      if factor == 2 {  // parts that lie between two whole numbers, of a scale of 1
        for c in 0..<columns { row[c] = (row[c] * 127).rounded() / 4 }
        row[0] = 63.5
      }
      let measures = zeros(4), sums = integers(2)
      let high = UnsafeMutablePointer<Int8>.allocate(capacity: columns)
      let low = UnsafeMutablePointer<Int8>.allocate(capacity: columns)
      table.quantize(row, columns, factor, high, low, measures, sums)
      quantized.add(high, columns)
      quantized.add(low, columns)
      quantized.add(measures, 4)
      quantized.add(sums, 2)
    }
    quantized.write("quantize")
    for groups in [16, 48, 208] { screens(table, groups, &random) }

    let concepts = 40, depth = 112
    let x = random.floats(depth), weights = random.floats(concepts * depth), scales = random.positives(concepts)
    let bias = random.floats(concepts)
    var products = Hash()
    for count in [1, 4, 17, 37] {
      let out = zeros(count)
      table.exactProducts(x, weights, depth, scales, bias, random.indices(count + 9, below: concepts), count, 9, out)
      products.add(out, count)
    }
    products.write("exactProducts")
    var bounds = Hash()
    let estimates = random.floats(37), out = zeros(37)
    table.upperBounds(random.indices(37, below: 40), estimates, 37, scales, bias, weights, 0.3, 0.7, out)
    bounds.add(out, 37)
    bounds.write("upperBounds")
  }

  /// Tokens and concepts of random bytes, searched and refined.
  static func screens(_ table: ScreeningKernels, _ groups: Int, _ random: inout Random) {
    // The same bytes, whatever the blocks are.
    let tokens = 12, concepts = 64, width = table.panelWidth, offset = table.tokenOffset
    let bytes = random.parts(tokens * groups, offset: offset)
    let packed = integers((tokens + table.tokensPerBlock) * groups)
    for t in 0..<tokens {
      let block = packed + t / table.tokensPerBlock * table.tokensPerBlock * groups
      table.packToken(bytes + t * groups, groups, t % table.tokensPerBlock, block)
    }
    let parts = random.parts(concepts * groups), panels = integers(concepts * groups), corrections = integers(concepts)
    for c in 0..<concepts {
      for group in 0..<groups { panels[c / width * width * groups + group * width + c % width] = parts[c * groups + group] }
      corrections[c] = -offset * sumOfBytes(parts + c * groups, groups)
    }
    let capacity = tokens * concepts + 16
    let found = FoundPairs(pairs: integers(capacity), conceptBits: 10, numbers: zeros(capacity), capacity: capacity)
    let tokenScales = random.positives(tokens), thresholds = random.positives(tokens)
    for t in 0..<tokens { tokenScales[t] *= 1e-5 }
    let scales = random.positives(concepts), bias = random.floats(concepts), norms = random.positives(concepts)
    let errors = random.positives(concepts), slacks = random.positives(concepts)
    for numbers in [scales, bias, norms, errors, slacks] { numbers[5] = 0 }  // at this threshold, and not above it
    thresholds[1] = 0
    var search = ScreenArguments(
      groups: groups, columns: concepts, panels: panels, corrections: corrections, scales: scales, bias: bias, norms: norms,
      errors: errors, slacks: slacks, count: tokens - 1, tokens: packed, tokenScales: tokenScales,
      factorsOfNorm: random.positives(tokens), factorsOfError: random.positives(tokens), thresholds: thresholds, pairs: found,
      scratch: integers(table.tokensPerBlock * width))
    table.screen(&search)
    write("screen", search.pairs)

    let count = 23, out = integers(count), chosen = random.indices(count, below: 10)
    let conceptParts = random.parts(20 * groups), tokenParts = random.parts(20 * groups, offset: offset)
    table.refine(conceptParts, tokenParts, groups, chosen, random.indices(count, below: 10), count, out)
    for q in 0..<count { out[q] -= offset * sumOfBytes(conceptParts + Int(chosen[q]) * 2 * groups, 2 * groups) }
    var refined = Hash()
    refined.add(out, count)
    refined.write("refine")
  }

  static func sumOfBytes(_ parts: UnsafePointer<Int32>, _ groups: Int) -> Int32 {
    let bytes = UnsafeRawPointer(parts)
    var sum: Int32 = 0
    for i in 0..<4 * groups { sum += Int32(bytes.load(fromByteOffset: i, as: Int8.self)) }
    return sum
  }

  static func signs(_ table: SignKernels) {
    var random = Random(state: 7)
    var words = Hash(), sums = Hash()
    for count in [1, 59, 60, 150, 400] {
      let rows = 7, stride = 9
      let values = random.floats(count * 48), out = random.floats(rows * 16)
      let bits = UnsafeMutablePointer<UInt64>.allocate(capacity: 9 * stride)
      for i in 0..<9 * stride { bits[i] = 0 }
      for r in 0..<rows {
        let row = random.floats(count)
        if r == 3 { row[count / 2] = 0 }
        words.add(table.words(row, count, bits + r, stride) ? 1 : 0)
        table.addSigns(row, min(count, stride), 7 + r, bits + 8 * stride)
      }
      words.add(bits, 9 * stride)
      table.sums(values + 16, 48, count, bits, stride, rows, zeros(12 * 32 * 16), out)
      sums.add(out, rows * 16)
    }
    words.write("signs.words")
    sums.write("signs.sums")

    let out = zeros(20 * 32), columnSums = random.floats(16)
    var masked = Hash()
    table.maskAndSum(random.floats(20 * 32), 32, random.sparse(20 * 48), 48, 20, out, 32, columnSums)
    masked.add(out, 20 * 32)
    masked.add(columnSums, 16)
    masked.write("signs.maskAndSum")
  }

  static func transposes(_ table: TransposeKernels) {
    var random = Random(state: 11)
    let columns = 48, out = zeros(16 * 64)
    var moved = Hash()
    table.rows(random.floats(16 * 64), 64, random.floats(16), columns, out)
    moved.add(out, columns * 16)
    table.lanes(random.floats(16 * columns), 16, columns, out, 64)
    moved.add(out, 16 * 64)
    table.addLanes(random.floats(16 * columns), columns, 0.3, out, 64, zeros(256))
    moved.add(out, 16 * 64)
    moved.write("transpose")
  }

  static func skipping(_ table: SkippingKernels) {
    var random = Random(state: 8)
    var sums = Hash(), rectified = Hash()
    for columns in [16, 80, table.width] {
      let values = random.sparse(9 * 32), out = random.floats(9 * 256), panel = zeros(32 * columns)
      table.packColumns(random.floats(32 * 256), 256, 32, random.positives(32), columns, panel)
      table.add(values, 32, 9, panel, columns, out, 256)
      sums.add(out, 9 * 256)
    }
    sums.write("skipping.add")
    for columns in [16, 32, 112] {
      let out = zeros(4 * 96)
      rectified.add(table.rectify(random.floats(columns), columns, out, 96))
      rectified.add(out, 4 * 96)
    }
    rectified.write("skipping.rectify")
  }

  static func fourier(_ table: FourierKernels) {
    var random = Random(state: 9)
    for radix in [1, 2, 3, 4, 5, 7, 8, 11, 13, 16] {
      let groups = 3, run = 2, length = radix * groups * run
      let twiddles = random.floats(2 * groups * radix), roots = random.floats(2 * radix)
      let x = random.floats(32 * length), y = zeros(32 * length)
      var pass = FourierPass(radix: radix, groups: groups, run: run, twiddles: twiddles, roots: roots)
      table.pass(&pass, x, x + 16, 32, y, y + 16, 32, zeros(2 * radix * 16))
      var hash = Hash()
      hash.add(y, 32 * length)
      hash.write("fourier.pass")
    }
    for columns in [6, 17, 40] {
      let sources = UnsafeMutablePointer<ConstantFloats>.allocate(capacity: 32)
      let targets = UnsafeMutablePointer<Floats>.allocate(capacity: 32)
      for row in 0..<32 { (sources[row], targets[row]) = (ConstantFloats(random.floats(96)), zeros(96)) }
      let lanes = zeros(32 * columns), scratch = zeros(64 * 16)
      var hash = Hash()
      table.loadRows(sources, columns, lanes)
      hash.add(lanes, 32 * columns)
      table.splitPairs(lanes, columns, 1, min(16, columns / 2), targets, 32, scratch)
      for row in 0..<32 { hash.add(targets[row], 96) }
      table.joinPairs(sources, 32, columns, 0, min(16, columns / 2 + 1), lanes, scratch)
      hash.add(lanes, 32 * columns)
      table.storeRows(lanes, 0.125, columns, targets)
      for row in 0..<32 { hash.add(targets[row], 96) }
      hash.write("fourier.rows")
    }
  }

  static func images(_ table: ImageKernels) {
    var random = Random(state: 10)
    let columns = 80, out = zeros(3 * 96), other = zeros(3 * 96)
    var bands = Hash()
    table.bandOfRows(random.floats(5 * 96), 96, random.floats(5), 5, columns, out)
    bands.add(out, columns)
    table.bandOfLanes(random.floats(30 * 16), random.indices(12, below: 25), random.floats(12 * 5), 5, 12, out)
    bands.add(out, 12 * 16)
    bands.write("images.bands")
    var noise = NoisyRowConstants(key: (7, 0x8000_0001), counter: (25_165_823, 11, 3), deviation: 0.05, scale: 4.4, shift: -2.1)
    var noisy = Hash()
    table.noisyRow(&noise, random.floats(columns), columns, out)
    noisy.add(out, columns)
    noisy.write("images.noisyRow")
    let planes = random.floats(3 * 96), matrix = random.floats(9)
    for i in 0..<3 * 96 { planes[i] *= 20 }
    var colours = Hash()
    table.colours(planes, 96, matrix, columns, out, 96)
    colours.add(out, 3 * 96)
    table.coloursAdjoint(out, planes, 96, matrix, columns, other, 96)
    colours.add(other, 3 * 96)
    colours.write("images.colours")
    let phases = random.floats(columns)
    for i in 0..<columns { phases[i] *= i < 40 ? 6000 : 4 }
    var spectrum = Hash()
    table.spectrum(phases, random.positives(columns), columns, out, other)
    spectrum.add(out, columns)
    spectrum.add(other, columns)
    table.phaseGradient(out, other, random.floats(columns), random.floats(columns), 0.375, columns, planes)
    spectrum.add(planes, columns)
    spectrum.write("images.spectrum")
    var step = AscentConstants(
      beta1: 0.9, beta2: 0.999, ofGradient: 0.03, ofMoment: 0.2, inverseRootCorrection: 3, epsilon: 1e-4)
    let first = random.floats(columns), second = random.positives(columns)
    for _ in 0..<3 { table.ascend(&step, phases, first, second, out, columns) }
    var ascent = Hash()
    for place in [first, second, out] { ascent.add(place, columns) }
    ascent.write("images.ascend")
  }

  static func min(_ a: Int, _ b: Int) -> Int { a < b ? a : b }
}
