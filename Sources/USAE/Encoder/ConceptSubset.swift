/// The dead concepts of an encoder, with their rows packed. Each token selects its auxiliary code among those that are not in
/// its main code.
///
/// A token selects so many of them that bounds would rule out little: the product with all of them takes less time than
/// screening, and gives the same bits.
struct ConceptSubset {
  /// In ascending order.
  private let concepts: [Int32]
  private let panels: PackedPanels
  private let scratch: [Scratch]

  /// One thread's memory.
  final class Scratch: @unchecked Sendable {
    fileprivate let packed: FloatBuffer
    fileprivate let keys: KeyLists
    /// Of a tile, [tokens, columns of the subset].
    fileprivate private(set) var values: FloatBuffer

    /// - Parameters:
    ///   - columns: the encoder's.
    ///   - depth: the widest token's.
    init(columns: Int, depth: Int) throws(USAEError) {
      let capacity = TileSize.capacity(columns: columns)
      packed = try FloatBuffer(capacity * depth)
      keys = try KeyLists(capacity: capacity)
      values = try FloatBuffer(0)
    }

    fileprivate func reserveValues(_ count: Int) throws(USAEError) {
      if values.count < count { values = try FloatBuffer(count) }
    }
  }

  /// - Parameters:
  ///   - concepts: in ascending order.
  ///   - scratch: for each thread, of this subset alone.
  init(_ concepts: [Int32], of encoder: PackedEncoder, scratch: [Scratch], work: InterruptibleWork) throws(USAEError) {
    self.concepts = concepts
    self.scratch = scratch
    let width = kernels.product.panelWidth
    let columns = (concepts.count + width - 1) / width * width
    let rows = try PaddedMatrix(rows: concepts.count, columns: encoder.depth)
    let scales = try FloatBuffer(columns)
    let bias = try FloatBuffer(columns)
    for (i, concept) in concepts.enumerated() {
      rows.row(i).update(from: encoder.weight.row(Int(concept)), count: rows.stride)
      scales.base[i] = encoder.scales.base[Int(concept)]
      bias.base[i] = encoder.bias.base[Int(concept)]
    }
    panels = try PackedPanels(rows, columns: columns, scales: scales, bias: bias, work: work)
    let values = TileSize.capacity(columns: encoder.columns) * columns
    for one in scratch { try one.reserveValues(values) }
  }

  /// For some tokens of a tile the `slots` largest positive pre-activations among the concepts of the subset that are not in
  /// the token's code.
  ///
  /// - Parameters:
  ///   - rows: those of the tokens in the tile's matrix, ascending.
  ///   - tokens: the tokens themselves, one after the other.
  func selectNext(_ tile: EncodedTile, rows: ArraySlice<Int>, tokens: TokenRows, slots: Int) -> SelectedKeys {
    let scratch = scratch[tile.worker]
    let (codes, keys) = (tile.keys, scratch.keys)
    keys.clear()
    let first = tile.rows.lowerBound
    if rows.contains(where: { !codes.hasAllPositive($0 &- first) }) {
      panels.product(tokens, packed: scratch.packed, out: scratch.values.base)
    }
    concepts.withUnsafeBufferPointer { concepts in
      for (number, row) in rows.enumerated() {
        let token = row &- first
        if let concepts = concepts.baseAddress, !codes.hasAllPositive(token) {
          let values = scratch.values.base + number &* panels.columns
          keys.add(concepts, values, self.concepts.count, above: 0, below: codes[token].last ?? .max)
        }
        keys.endToken(k: slots)
      }
    }
    return keys.selected(k: slots, above: 0)
  }
}
