import KernelTypes

/// One thread's room for a tile: a few tokens whose codes are selected, or that have a pre-activation for every concept.
///
/// Codes are the same whether the tile screens or computes every pre-activation.
final class EncoderTile: @unchecked Sendable {
  enum Way {
    case screening(ScreenedWeights)
    case product(PackedPanels)
    /// Every pre-activation is written, and nothing selected.
    case dense(PackedPanels)
  }

  let encoder: PackedEncoder
  let keys: AlignedBuffer<UInt64>
  private var way: Way?
  private var screened: ScreenedTile?
  private var product: ProductTile?
  /// The rows that were taken last, packed; pre-activations of them, of all concepts or of a few.
  private var rows: (tokens: UnsafePointer<Float>, stride: Int, count: Int)?
  private var packed, numbers, subsetNumbers: FloatBuffer?
  private var hasSubset = false

  init(_ encoder: PackedEncoder) throws(USAEError) {
    self.encoder = encoder
    keys = try AlignedBuffer<UInt64>(encoder.columns + selectionScratch)
  }

  /// Up to sixteen blocks of tokens for each panel read, fewer where there are many concepts: so 24 megabytes hold a number for
  /// each concept and token, which is needed where all are dead; lists of nearly all concepts take some eight times as much.
  /// With 8 megabytes, encoding with 65,536 concepts took 1.24 times as long: their weights come from memory, for fewer tokens
  /// at a time. Dense tiles, of which every number is written, stay within four.
  static func capacity(_ encoder: PackedEncoder, dense: Bool) -> Int {
    let block = kernels.product.tokensPerBlock
    let most = dense ? (blocks: 8, bytes: 4 << 20) : (blocks: 16, bytes: 24 << 20)
    return block * max(1, min(most.blocks, most.bytes / (4 * encoder.columns * block)))
  }

  /// Says how the next tiles are computed.
  func prepare(_ way: Way) throws(USAEError) {
    self.way = way
    let capacity = Self.capacity(encoder, dense: false)
    screened?.counts = ScreeningCounts()  // of a call that was interrupted
    switch way {
    case .screening(let weights):
      if screened == nil { screened = try ScreenedTile(encoder, capacity: capacity) }
      screened?.weights = weights
    case .product(let panels):
      if product == nil { product = try ProductTile(encoder, capacity: capacity) }
      product?.panels = panels
    case .dense:
      try makePacked()
      if numbers == nil { numbers = try FloatBuffer(Self.capacity(encoder, dense: true) * encoder.columns) }
    }
  }

  /// Makes room for the pre-activations of a list of concepts.
  func prepare(_ subset: ConceptSubset) throws(USAEError) {
    try makePacked()
    let size = Self.capacity(encoder, dense: false) * subset.columns
    if (subsetNumbers?.count ?? 0) < size { subsetNumbers = try FloatBuffer(size) }
  }

  private func makePacked() throws(USAEError) {
    if packed == nil { packed = try FloatBuffer(Self.capacity(encoder, dense: false) * encoder.depth) }
  }

  /// Takes `count` rows from `tokens` on.
  func take(_ tokens: UnsafePointer<Float>, stride: Int, count: Int) {
    rows = (tokens, stride, count)
    hasSubset = false
    switch way {
    case .screening: screened?.take(tokens, stride: stride, count: count)
    case .product: product?.take(tokens, stride: stride, count: count)
    case .dense(let panels):
      if let numbers { panels.product(packedTokens(), count: count, bias: encoder.bias, out: numbers.base) }
    case nil: preconditionFailure("a tile is prepared before it is used")
    }
  }

  /// The rows as the product reads them.
  private func packedTokens() -> UnsafePointer<Float> {
    guard let packed, let rows else { preconditionFailure("a tile is prepared before it is used") }
    let block = kernels.product.tokensPerBlock
    for first in stride(from: 0, to: rows.count, by: block) {
      kernels.product.packTokens(
        rows.tokens + first * rows.stride, rows.stride, min(block, rows.count - first), encoder.depth,
        packed.base + first * encoder.depth)
    }
    return UnsafePointer(packed.base)
  }

  /// All pre-activations of a row of a dense tile.
  func preactivations(_ token: Int) -> UnsafeMutablePointer<Float> {
    guard case .dense = way, let numbers else { preconditionFailure("only a dense tile has all pre-activations") }
    return numbers.base + token &* encoder.columns
  }

  /// The k largest pre-activations of a row that are above a limit, 0 or more, as keys in descending order at the front of
  /// `keys`. The k and the limit of a tile's tokens are the same. Not of a dense tile.
  func select(_ token: Int, k: Int, above limit: Float = 0) -> Int {
    if case .screening = way, let screened { return screened.select(token, k: k, above: limit, keys: keys.base) }
    guard case .product = way, let product else { preconditionFailure("a dense tile selects nothing") }
    return product.select(token, k: k, above: limit, keys: keys.base)
  }

  /// After `select` kept `k` keys: the `slots` largest positive pre-activations among `subset` that it left out, as keys.
  func selectNext(_ token: Int, k: Int, among subset: ConceptSubset, slots: Int) -> Int {
    let smallest = k > 0 ? keys.base[k - 1] : .max
    let values = preactivations(token, of: subset)
    var count = 0
    for (i, concept) in subset.concepts.enumerated() {
      let value = values[i]
      let key = selectionKey(value, concept)
      // Written always, kept if wanted: a branch would be mispredicted half of the time.
      keys.base[count] = key
      count &+= value > 0 && key < smallest ? 1 : 0
    }
    return kernels.selection.keepLargest(keys.base, count, slots)
  }

  /// Of a row; computed for all rows when the first is asked for.
  private func preactivations(_ token: Int, of subset: ConceptSubset) -> UnsafePointer<Float> {
    guard let rows, let subsetNumbers else { preconditionFailure("a tile is prepared for a list of concepts") }
    if !hasSubset {
      subset.product(packedTokens(), count: rows.count, out: subsetNumbers.base)
      hasSubset = true
    }
    return UnsafePointer(subsetNumbers.base + token &* subset.columns)
  }

  /// What screening had to do since the last call.
  func takeCounts() -> ScreeningCounts {
    defer { screened?.counts = ScreeningCounts() }
    return screened?.counts ?? ScreeningCounts()
  }
}

/// The key that a kernel's scan makes of a positive value; `Kernels/Source/Selection.swift` says how it orders.
@inline(__always) func selectionKey(_ value: Float, _ column: Int32) -> UInt64 {
  UInt64(value.bitPattern) << 32 | UInt64(~UInt32(bitPattern: column))
}
/// A selection key's value and column.
@inline(__always) func value(ofKey key: UInt64) -> Float { Float(bitPattern: UInt32(truncatingIfNeeded: key >> 32)) }
@inline(__always) func column(ofKey key: UInt64) -> Int32 { Int32(bitPattern: ~UInt32(truncatingIfNeeded: key)) }
