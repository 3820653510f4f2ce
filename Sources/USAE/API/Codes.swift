/// Sparse codes of `rows` tokens, [rows, k]: values, largest first, and their concepts; unused slots hold 0 and -1. With
/// BatchTopK, k is the autoencoder's `slots`.
public struct Codes: Sendable, Equatable {
  public let rows, k, concepts: Int
  public internal(set) var values: [Float]
  public internal(set) var indices: [Int32]

  init(rows: Int, k: Int, concepts: Int) {
    self.rows = rows
    self.k = k
    self.concepts = concepts
    values = [Float](repeating: 0, count: rows * k)
    indices = [Int32](repeating: -1, count: rows * k)
  }

  /// Active concepts of one token and their values.
  public func active(_ row: Int) -> [(concept: Int, value: Float)] {
    (row * k..<(row + 1) * k).filter { indices[$0] >= 0 }.map { (Int(indices[$0]), values[$0]) }
  }
}
