import KernelTypes

/// Selection by the product: every pre-activation is computed, and those that may be among a token's k largest are kept.
final class ProductTile: PairFinder, @unchecked Sendable {
  var panels: PackedPanels?
  private let encoder: PackedEncoder
  private let lists: TokenSearch
  private var tokens: UnsafePointer<Float>?
  private var stride = 0
  private var count = 0
  private let norms: FloatBuffer
  /// Whether the tile's tokens were searched.
  private var isSearched = false
  // Tokens of one search as the product reads them.
  private let packed, floors: FloatBuffer

  init(_ encoder: PackedEncoder, capacity: Int) throws(USAEError) {
    self.encoder = encoder
    lists = try TokenSearch(columns: encoder.columns, capacity: capacity)
    norms = try FloatBuffer(capacity)
    packed = try FloatBuffer(capacity * encoder.depth)
    floors = try FloatBuffer(capacity)
  }

  /// Takes the rows from `tokens` on, which are read again by `select`.
  func take(_ tokens: UnsafePointer<Float>, stride rowStride: Int, count: Int) {
    self.tokens = tokens
    stride = rowStride
    self.count = count
    isSearched = false
    for token in 0..<count {
      let row = tokens + token * stride
      norms.base[token] = kernels.rows.dot(row, row, stride).squareRoot()
    }
  }

  /// See `EncoderTile.select`.
  func select(_ token: Int, k: Int, above limit: Float, keys: UnsafeMutablePointer<UInt64>) -> Int {
    if !isSearched {
      lists.findLargest(k, above: limit, of: Array(0..<count), self)
      isSearched = true
    }
    let found = lists.found(token)
    for i in 0..<found.count { keys[i] = selectionKey(found.numbers[i], found.concepts[i]) }
    return kernels.selection.keepLargest(keys, found.count, k)
  }

  // MARK: PairFinder

  func norm(of token: Int) -> Float { norms.base[token] }

  func place(_ token: Int, at place: Int, floor: Float) {
    guard let tokens else { preconditionFailure("a tile takes tokens first") }
    let block = kernels.product.tokensPerBlock
    let (number, lane) = place.quotientAndRemainder(dividingBy: block)
    let out = packed.base + number * block * encoder.depth + lane
    let row = tokens + token * stride
    for p in 0..<encoder.depth { out[p &* block] = row[p] }
    floors.base[place] = floor
  }

  func find(count: Int, _ pairs: inout FoundPairs) {
    guard let panels else { preconditionFailure("a tile is prepared before it is used") }
    var arguments = ProductArguments(
      depth: encoder.depth, columns: encoder.columns, count: count, tokens: packed.base, panels: panels.base,
      bias: encoder.bias.base, floors: floors.base, pairs: pairs)
    kernels.product.pairsAbove(&arguments)
    pairs = arguments.pairs
  }
}
