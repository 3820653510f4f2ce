import KernelTypes

/// One encoder's weights in int8, and what bounds the error of products with them.
///
/// Weights and tokens are split into high and low int8 parts: w = w1 + w2 + rest, with w1 in whole multiples of a scale and w2
/// in those of a 254th of it. The estimate bias + x1.w1 needs the high parts alone, the refined one adds x1.w2 + x2.w1.
/// `ErrorBounds.swift` says how far both can be from the exact dot product.
final class ScreenedWeights: @unchecked Sendable {
  /// Concepts, rounded up to whole panels.
  let columns: Int
  /// Groups of four bytes along the depth, a multiple of 16.
  let groups: Int
  let roundingShare: Float
  /// Whether bounds are finite: false if a weight is too large or not a number.
  private(set) var isUsable = false
  private let weight: PaddedMatrix
  private let scales, bias: FloatBuffer
  let bounds: ConceptBounds
  /// High parts, [columns / panelWidth, groups, panelWidth].
  private let panels: AlignedBuffer<Int32>
  /// High and low parts, [columns, 2, groups].
  private let parts: AlignedBuffer<Int32>
  // Corrections for the kernels' token offset, which adds the offset times the sum of a concept's bytes to a sum of products.
  private let highCorrections, refinedCorrections: AlignedBuffer<Int32>
  private let partScales: FloatBuffer

  /// Norms up to this keep every product of two of them far from overflow.
  static let largestNorm: Float = 1e15
  /// Sums of products of bytes stay below 2^31.
  static let largestDepth = 1 << 15

  /// Takes the rows of `weight`, each times its scale.
  ///
  /// - Parameter previous: weights of the same shape that are no longer used; their memory is reused.
  init(
    _ weight: PaddedMatrix, columns: Int, scales: FloatBuffer, bias: FloatBuffer, reusing previous: ScreenedWeights? = nil,
    work: InterruptibleWork
  ) throws(USAEError) {
    self.weight = weight
    self.columns = columns
    self.scales = scales
    self.bias = bias
    groups = Self.groups(depth: weight.columns)
    roundingShare = ErrorBounds.roundingShare(depth: weight.columns)
    if let previous {
      (bounds, panels, parts, partScales) = (previous.bounds, previous.panels, previous.parts, previous.partScales)
      (highCorrections, refinedCorrections) = (previous.highCorrections, previous.refinedCorrections)
    } else {
      bounds = try ConceptBounds(count: columns)
      panels = try AlignedBuffer<Int32>(columns * groups)
      parts = try AlignedBuffer<Int32>(columns * 2 * groups)
      partScales = try FloatBuffer(columns)
      highCorrections = try AlignedBuffer<Int32>(columns)
      refinedCorrections = try AlignedBuffer<Int32>(columns)
    }
    isUsable = try pack(work: work)
  }

  /// Groups of four along the depth, rounded up to vectors of 16.
  static func groups(depth: Int) -> Int { (depth + 63) / 64 * 16 }

  /// Whether all bounds are finite.
  private func pack(work: InterruptibleWork) throws(USAEError) -> Bool {
    let width = kernels.screening.panelWidth
    let isUsable = try AlignedBuffer<Bool>(columns / width)
    work.runToEnd(columns / width) { number, _ in
      let first = number * width
      let concepts = first..<min(first + width, self.weight.rows)
      isUsable.base[number] = concepts.reduce(true) { self.packRow($1) && $0 }
      let panel = self.panels.base + first * self.groups
      for lane in 0..<width {
        let high = self.parts.base + (first + lane) * 2 * self.groups
        for group in 0..<self.groups { panel[group &* width &+ lane] = high[group] }
      }
    }
    return (0..<columns / width).allSatisfy { isUsable.base[$0] }
  }

  /// Parts and bounds of one concept; false if its norm is too large or not a number.
  private func packRow(_ concept: Int) -> Bool {
    let row = Int8Row(
      weight.row(concept), columns: weight.stride, factor: scales.base[concept], groups: groups,
      to: parts.base + concept * 2 * groups)
    // These wrap, since the parts of NaN can be anything.
    let offset = kernels.screening.tokenOffset
    highCorrections.base[concept] = -offset &* row.highSum
    refinedCorrections.base[concept] = -offset &* (row.highSum &+ row.lowSum)
    partScales.base[concept] = row.scale
    let bounds = ErrorBounds(row, roundingShare: roundingShare)
    self.bounds.set(concept, bounds, bias: bias.base[concept], roundingShare: roundingShare)
    return bounds.isUsable && abs(bias.base[concept]) < Self.largestNorm
  }
}

// MARK: Products with tokens

extension ScreenedWeights {
  var concepts: Int { weight.rows }

  /// Finds pairs of a token and a concept whose upper bound is above the token's search threshold.
  func screen(_ tokens: PackedInt8Tokens, count: Int, _ pairs: inout FoundPairs) {
    var arguments = ScreenArguments(
      groups: groups, columns: columns, panels: panels.base, corrections: highCorrections.base, scales: partScales.base,
      bias: bias.base, norms: bounds.norms.base, errors: bounds.highErrors.base, slacks: bounds.slacks.base, count: count,
      tokens: tokens.blocks.base, tokenScales: tokens.scales.base, factorsOfNorm: tokens.factorsOfNorm.base,
      factorsOfError: tokens.factorsOfError.base, thresholds: tokens.thresholds.base, pairs: pairs, scratch: tokens.sums.base)
    kernels.screening.screen(&arguments)
    pairs = arguments.pairs
  }

  /// Upper bounds of a token's pre-activations of some concepts, from their estimates.
  func upperBounds(_ token: ErrorBounds, _ found: TokenSearch.Found, out: UnsafeMutablePointer<Float>) {
    let factors = token.factors(roundingShare: roundingShare)
    kernels.screening.upperBounds(
      found.concepts, found.numbers, found.count, bounds.norms.base, bounds.highErrors.base, bounds.slacks.base,
      factors.ofNorm, factors.ofError, out)
  }

  /// What refined estimates of pairs of a concept and a token add to the estimates.
  ///
  /// - Parameters:
  ///   - parts: of all tokens, with the kernels' token offset, [tokens, 2, groups].
  ///   - sums: scratch memory for `count` sums.
  func refine(
    _ concepts: UnsafePointer<Int32>, _ tokens: UnsafePointer<Int32>, count: Int, parts: UnsafePointer<Int32>,
    tokenScales: UnsafePointer<Float>, sums: UnsafeMutablePointer<Int32>, consume: (_ pair: Int, _ refinement: Float) -> Void
  ) {
    kernels.screening.refine(self.parts.base, parts, groups, concepts, tokens, count, sums)
    for pair in 0..<count {
      let concept = Int(concepts[pair])
      let sum = sums[pair] &+ refinedCorrections.base[concept]
      consume(pair, Float(sum) * (tokenScales[Int(tokens[pair])] * (partScales.base[concept] / 254)))
    }
  }

  /// A token's pre-activations for some concepts, with the bits that the product gives them.
  ///
  /// - Parameter following: how many more concepts come in the list, which the processor may fetch ahead.
  func exactPreactivations(
    _ token: UnsafePointer<Float>, _ concepts: UnsafePointer<Int32>, count: Int, following: Int = 0,
    out: UnsafeMutablePointer<Float>
  ) {
    kernels.screening.exactProducts(
      token, weight.base, weight.stride, scales.base, bias.base, concepts, count, following, out)
  }
}

/// The high and low int8 parts of a row, and what they miss.
struct Int8Row {
  /// The scale of the high part; that of the low part is a 254th of it.
  let scale: Float
  /// Norms of the row, of what the high part misses, and of what both parts miss.
  let norm, highError, fullError: Float
  /// Sums of the bytes.
  let highSum, lowSum: Int32

  /// Writes both parts of factor * row, `groups` of four bytes each.
  @inline(__always)
  init(_ row: UnsafePointer<Float>, columns: Int, factor: Float, groups: Int, to parts: UnsafeMutablePointer<Int32>) {
    let bytes = UnsafeMutableRawPointer(parts).assumingMemoryBound(to: Int8.self)
    let (measures, sums) = withUnsafeTemporaryAllocation(of: Float.self, capacity: 4) { measures in
      withUnsafeTemporaryAllocation(of: Int32.self, capacity: 2) { sums in
        kernels.screening.quantize(
          row, columns, factor, bytes, bytes + 4 * groups, measures.baseAddress!, sums.baseAddress!)
        return ((measures[0], measures[1], measures[2], measures[3]), (sums[0], sums[1]))
      }
    }
    (scale, norm, highError, fullError) = measures
    (highSum, lowSum) = sums
  }
}
