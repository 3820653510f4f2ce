import USAEKernelTypes

/// One thread's room for a tile: a few tokens, with a pre-activation for every concept, small enough to stay in the cache, or
/// with what screening finds; `select` gives the same keys either way.
final class EncoderTile: @unchecked Sendable {
  let encoder: PackedEncoder
  /// Tokens in a tile at most.
  private let capacity: Int
  let keys: AlignedBuffer<UInt64>
  private var numbers: FloatBuffer?
  private var packed: FloatBuffer?
  private var panels: PackedPanels?
  private var screened: ScreenedTile?
  private var isScreening = false
  /// The rows that were computed last, and, of a tile that screens, their pre-activations for some concepts.
  private var rows: (tokens: UnsafePointer<Float>, stride: Int, count: Int)?
  private var subsetNumbers: FloatBuffer?
  private var hasSubset = false
  /// Selection starts from a guess; the result does not depend on it.
  private var threshold: Float = 0

  init(_ encoder: PackedEncoder) throws(USAEError) {
    self.encoder = encoder
    capacity = Self.capacity(encoder, screening: encoder.mayScreen)
    keys = try AlignedBuffer<UInt64>(encoder.columns + selectionSpare)
  }

  /// Up to eight blocks of tokens for each panel read, as long as their pre-activations stay within 4 MB. Where tiles screen,
  /// twice as many: weights have a quarter of the size, and their digits are read once for all tokens; what may be written are
  /// pre-activations for dead concepts.
  static func capacity(_ encoder: PackedEncoder, screening: Bool) -> Int {
    let block = kernels.tokensPerBlock
    let most = screening ? (blocks: 16, bytes: 32 << 20) : (blocks: 8, bytes: 4 << 20)
    return block * max(1, min(most.blocks, most.bytes / (4 * encoder.columns * block)))
  }

  /// Says how the next tiles are computed: by screening, or by the product with panels.
  func prepare(_ screening: ScreenedWeights?, _ panels: PackedPanels?) throws(USAEError) {
    self.panels = panels
    isScreening = screening != nil
    screened?.counts = ScreeningCounts()  // of a call that was interrupted
    if let screening {
      if screened == nil { screened = try ScreenedTile(encoder, capacity: capacity) }
      screened?.weights = screening
    } else {
      try makePacked()
      if numbers == nil { numbers = try FloatBuffer(Self.capacity(encoder, screening: false) * encoder.columns) }
    }
  }

  /// Makes room for the pre-activations of a list of concepts.
  func prepare(_ subset: ConceptSubset) throws(USAEError) {
    try makePacked()
    let size = capacity * subset.columns
    if (subsetNumbers?.count ?? 0) < size { subsetNumbers = try FloatBuffer(size) }
  }

  private func makePacked() throws(USAEError) {
    if packed == nil { packed = try FloatBuffer(capacity * encoder.depth) }
  }

  /// Computes the numbers of `count` rows from `tokens` on.
  func compute(_ tokens: UnsafePointer<Float>, stride rowStride: Int, count: Int) {
    rows = (tokens, rowStride, count)
    hasSubset = false
    if isScreening {
      screened?.take(tokens, stride: rowStride, count: count)
      return
    }
    guard let panels, let numbers else { preconditionFailure("a tile is prepared before it is used") }
    panels.product(packedTokens(), count: count, bias: encoder.bias, out: numbers.base)
  }

  /// The rows as the product reads them.
  private func packedTokens() -> UnsafePointer<Float> {
    guard let packed, let rows else { preconditionFailure("a tile is prepared before it is used") }
    let block = kernels.tokensPerBlock
    for first in stride(from: 0, to: rows.count, by: block) {
      kernels.packTokens(
        rows.tokens + first * rows.stride, rows.stride, min(block, rows.count - first), encoder.depth,
        packed.base + first * encoder.depth)
    }
    return UnsafePointer(packed.base)
  }

  /// All pre-activations of a row of a tile that does not screen.
  func preactivations(_ token: Int) -> UnsafeMutablePointer<Float> {
    assert(!isScreening)
    return row(token)
  }

  private func row(_ token: Int) -> UnsafeMutablePointer<Float> {
    guard let numbers else { preconditionFailure("a tile that screens has no pre-activations") }
    return numbers.base + token &* encoder.columns
  }

  /// The k largest pre-activations of a row that are above a limit, 0 or more, as keys in descending order at the front of
  /// `keys`. The k and the limit of a tile's tokens are the same.
  func select(_ token: Int, k: Int, above limit: Float = 0) -> Int {
    if isScreening, let screened {
      return screened.select(token, k: k, above: limit, keys: keys.base)
    }
    let row = row(token)
    var count = kernels.scan(row, encoder.columns, max(threshold, limit), keys.base)
    if count < k && threshold > limit { count = kernels.scan(row, encoder.columns, limit, keys.base) }
    let kept = keepLargest(count, k)
    // Nine tenths of this token's smallest: nearly always below the next token's, and far above most candidates.
    threshold = kept == k ? 0.9 * value(ofKey: keys.base[k &- 1]) : 0
    return kept
  }

  /// After `select` kept `k` keys: the `slots` largest positive pre-activations among `subset` that it left out, as keys.
  func selectNext(_ token: Int, k: Int, among subset: ConceptSubset, slots: Int) -> Int {
    let smallest = k > 0 ? keys.base[k - 1] : .max
    let ofSubset = isScreening ? preactivations(token, of: subset) : nil
    let ofAll = isScreening ? nil : row(token)
    var count = 0
    for (i, concept) in subset.concepts.enumerated() {
      let value = ofSubset?[i] ?? ofAll?[Int(concept)] ?? 0
      let key = selectionKey(value, concept)
      // Written always, kept if wanted: a branch would be mispredicted half of the time.
      keys.base[count] = key
      count &+= value > 0 && key < smallest ? 1 : 0
    }
    return keepLargest(count, slots)
  }

  /// A row of a tile that screens; of all its rows when the first is asked for.
  private func preactivations(_ token: Int, of subset: ConceptSubset) -> UnsafePointer<Float> {
    guard let rows, let subsetNumbers else { preconditionFailure("a tile is prepared for a list of concepts") }
    if !hasSubset {
      subset.product(packedTokens(), count: rows.count, out: subsetNumbers.base)
      hasSubset = true
    }
    return UnsafePointer(subsetNumbers.base + token &* subset.columns)
  }

  private func keepLargest(_ count: Int, _ wanted: Int) -> Int { kernels.keepLargest(keys.base, count, wanted) }

  /// What screening had to do since the last call.
  func takeCounts() -> ScreeningCounts {
    defer { screened?.counts = ScreeningCounts() }
    return screened?.counts ?? ScreeningCounts()
  }
}

/// The key that a kernel's scan makes of a positive value; `USAEKernels/Selection.swift` says how it orders.
@inline(__always) func selectionKey(_ value: Float, _ column: Int32) -> UInt64 {
  UInt64(value.bitPattern) << 32 | UInt64(~UInt32(bitPattern: column))
}
/// A selection key's value and column.
@inline(__always) func value(ofKey key: UInt64) -> Float { Float(bitPattern: UInt32(truncatingIfNeeded: key >> 32)) }
@inline(__always) func column(ofKey key: UInt64) -> Int32 { Int32(bitPattern: ~UInt32(truncatingIfNeeded: key)) }
