import KernelTypes

/// Selection by the product: every pre-activation of a tile is computed, and those that may be among a token's k largest are
/// kept.
struct ProductSelection: PairFinder {
  private let tokens: TokenRows
  private let panels: PackedPanels
  private let scratch: Scratch

  /// One thread's memory.
  final class Scratch: @unchecked Sendable {
    fileprivate let search: TokenSearch
    fileprivate let keys: KeyLists
    fileprivate let norms: FloatBuffer
    // The tokens of one search as the kernel reads them, and their search thresholds.
    fileprivate let packed, thresholds: FloatBuffer

    init(columns: Int, depth: Int) throws(USAEError) {
      let capacity = TileSize.capacity(columns: columns)
      search = try TokenSearch(columns: columns, capacity: capacity)
      keys = try KeyLists(capacity: capacity)
      norms = try FloatBuffer(capacity)
      packed = try FloatBuffer(capacity * depth)
      thresholds = try FloatBuffer(capacity)
    }
  }

  init(_ tokens: TokenRows, _ panels: PackedPanels, _ scratch: Scratch) {
    self.tokens = tokens
    self.panels = panels
    self.scratch = scratch
    for token in 0..<tokens.count {
      let row = tokens.row(token)
      scratch.norms.base[token] = kernels.rows.dot(row, row, tokens.stride).squareRoot()
    }
  }

  /// See `TopKSelector.select`.
  func select(k: Int, above threshold: Float) -> SelectedKeys {
    let (search, keys) = (scratch.search, scratch.keys)
    search.findLargest(k, above: threshold, of: Array(0..<tokens.count), self)
    keys.clear()
    for token in 0..<tokens.count {
      let found = search.found(token)
      keys.add(found.concepts, found.numbers, found.count, above: threshold)
      keys.endToken(k: k)
    }
    return keys.selected(k: k, above: threshold)
  }

  // MARK: PairFinder

  func norm(of token: Int) -> Float { scratch.norms.base[token] }

  func place(_ token: Int, at place: Int, above threshold: Float) {
    let (depth, block) = (panels.depth, kernels.product.tokensPerBlock)
    let (number, lane) = place.quotientAndRemainder(dividingBy: block)
    let out = scratch.packed.base + number * block * depth + lane
    let row = tokens.row(token)
    for p in 0..<depth { out[p &* block] = row[p] }
    scratch.thresholds.base[place] = threshold
  }

  func find(count: Int, _ pairs: inout FoundPairs) {
    var arguments = ProductArguments(
      depth: panels.depth, columns: panels.columns, count: count, tokens: scratch.packed.base, panels: panels.base,
      bias: panels.bias.base, thresholds: scratch.thresholds.base, pairs: pairs)
    kernels.product.pairsAbove(&arguments)
    pairs = arguments.pairs
  }
}
