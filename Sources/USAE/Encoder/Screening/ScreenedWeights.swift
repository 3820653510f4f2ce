import KernelTypes

/// One encoder's weights in bytes, with what is needed to bound the error of products with them.
///
/// Weights and tokens are written in two digits: w = w1 + w2 + rest, w1 of whole multiples of a scale and w2 of its 254th.
/// The estimate bias + x1.w1 comes from bytes alone, the refined one adds x1.w2 + x2.w1. `ErrorBounds.swift` says how far
/// they may be from the pre-activation.
final class ScreenedWeights: @unchecked Sendable {
  let columns: Int
  /// Groups of four bytes along the depth, a multiple of 16.
  let quads: Int
  let concepts: ConceptBounds
  let roundingShare: Float
  /// False if a weight is so large that bounds could overflow, or is not a number.
  private(set) var isUsable = false
  private let panels: AlignedBuffer<Int32>
  /// Both digits, [columns, 2, quads].
  private let digits: AlignedBuffer<Int32>
  // Less than 0 by what the tokens' offset adds: it times sums of a concept's bytes.
  private let starts: AlignedBuffer<Int32>
  private let refinedStarts: AlignedBuffer<Int32>
  private let scales: FloatBuffer

  /// Norms up to this keep every product of two of them far from overflow.
  static let largestNorm: Float = 1e15
  /// Sums of products of bytes stay below 2^31.
  static let largestDepth = 1 << 15

  /// - Parameter columns: concepts, rounded up to whole panels.
  init(columns: Int, depth: Int) throws(USAEError) {
    self.columns = columns
    quads = Self.quads(depth: depth)
    panels = try AlignedBuffer<Int32>(columns * quads)
    digits = try AlignedBuffer<Int32>(columns * 2 * quads)
    starts = try AlignedBuffer<Int32>(columns)
    refinedStarts = try AlignedBuffer<Int32>(columns)
    scales = try FloatBuffer(columns)
    concepts = try ConceptBounds(count: columns)
    roundingShare = ErrorBounds.roundingShare(depth: depth)
  }

  /// A vector register holds 64 bytes.
  static func quads(depth: Int) -> Int { (depth + 63) / 64 * 16 }

  /// Takes the rows of `weight`, each times its factor.
  func pack(_ weight: PaddedMatrix, factors: FloatBuffer, bias: FloatBuffer, work: Work) throws(USAEError) {
    let width = kernels.screening.panelWidth
    let unusable = try AlignedBuffer<Bool>(columns / width)
    work.runToEnd(columns / width) { panel, _ in
      let first = panel * width
      for concept in first..<min(first + width, weight.rows) {
        let fits = self.packRow(weight, concept, factor: factors.base[concept], bias: bias.base[concept])
        if !fits { unusable.base[panel] = true }
      }
      let panel = self.panels.base + first * self.quads
      for lane in 0..<width {
        let coarse = self.digits.base + (first + lane) * 2 * self.quads
        for quad in 0..<self.quads { panel[quad &* width &+ lane] = coarse[quad] }
      }
    }
    isUsable = !(0..<columns / width).contains { unusable.base[$0] }
  }

  /// Digits and bounds of one concept; false if its norm is too large or not a number.
  private func packRow(_ weight: PaddedMatrix, _ concept: Int, factor: Float, bias: Float) -> Bool {
    let row = Quantized(
      weight.row(concept), columns: weight.stride, factor: factor, quads: quads, to: digits.base + concept * 2 * quads)
    // Wrapping: the digits of what is not a number are anything.
    let offset = kernels.screening.tokenOffset
    starts.base[concept] = -offset &* row.coarseSum
    refinedStarts.base[concept] = -offset &* (row.coarseSum &+ row.fineSum)
    scales.base[concept] = row.scale
    let bounds = ErrorBounds(row, roundingShare: roundingShare)
    concepts.set(concept, bounds, bias: bias, roundingShare: roundingShare)
    return bounds.isUsable && abs(bias) < Self.largestNorm
  }

  /// A search with these weights.
  func screenArguments(
    bias: UnsafePointer<Float>, count: Int, tokens: UnsafePointer<Int32>, tokenScales: UnsafePointer<Float>,
    factorsOfNorm: UnsafePointer<Float>, factorsOfError: UnsafePointer<Float>, floors: UnsafePointer<Float>,
    pairs: FoundPairs, spare: UnsafeMutablePointer<Int32>
  ) -> ScreenArguments {
    ScreenArguments(
      groups: quads, columns: columns, panels: panels.base, starts: starts.base, scales: scales.base, bias: bias,
      norms: concepts.norms.base, errors: concepts.errors.base, slacks: concepts.slacks.base, count: count, tokens: tokens,
      tokenScales: tokenScales, factorsOfNorm: factorsOfNorm, factorsOfError: factorsOfError, floors: floors, pairs: pairs,
      scratch: spare)
  }

  /// What refined estimates of pairs of a concept and a token add.
  ///
  /// - Parameter digits: of all tokens, with the kernels' offset, [tokens, 2, quads].
  func refine(
    _ concepts: UnsafePointer<Int32>, _ tokens: UnsafePointer<Int32>, count: Int, digits: UnsafePointer<Int32>,
    tokenScales: UnsafePointer<Float>, sums: UnsafeMutablePointer<Int32>, consume: (_ pair: Int, _ refinement: Float) -> Void
  ) {
    kernels.screening.refine(self.digits.base, digits, quads, concepts, tokens, count, sums)
    for pair in 0..<count {
      let concept = Int(concepts[pair])
      let sum = sums[pair] &+ refinedStarts.base[concept]
      consume(pair, Float(sum) * (tokenScales[Int(tokens[pair])] * (scales.base[concept] / 254)))
    }
  }
}

/// The two digits of a row and what they leave.
struct Quantized {
  private(set) var scale: Float = 0
  /// Norms of the row, of what the coarse digits miss, and of what both miss.
  private(set) var norm: Float = 0, error: Float = 0, rest: Float = 0
  private(set) var coarseSum: Int32 = 0, fineSum: Int32 = 0

  /// Writes both digits of factor * row, `quads` of four each.
  @inline(__always)
  init(_ row: UnsafePointer<Float>, columns: Int, factor: Float, quads: Int, to digits: UnsafeMutablePointer<Int32>) {
    let bytes = UnsafeMutableRawPointer(digits).assumingMemoryBound(to: Int8.self)
    let (measures, sums) = withUnsafeTemporaryAllocation(of: Float.self, capacity: 4) { measures in
      withUnsafeTemporaryAllocation(of: Int32.self, capacity: 2) { sums in
        kernels.screening.quantize(
          row, columns, factor, bytes, bytes + 4 * quads, measures.baseAddress!, sums.baseAddress!)
        return ((measures[0], measures[1], measures[2], measures[3]), (sums[0], sums[1]))
      }
    }
    (scale, norm, error, rest) = measures
    (coarseSum, fineSum) = sums
  }
}
