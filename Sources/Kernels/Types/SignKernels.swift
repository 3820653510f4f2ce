/// Signs that fit into one word of `SignKernels`.
public let signsPerWord = 60

/// Products with matrices of signs. Lanes are 16 floats.
public struct SignKernels: @unchecked Sendable {
  /// Which elements are positive, `signsPerWord` to a word, words `stride` apart; true if an element is 0.
  public typealias Words =
    @convention(c) (_ row: ConstantFloats, _ columns: Int, _ words: UnsafeMutablePointer<UInt64>, _ stride: Int) -> Bool
  /// Sets a bit of words[c] where row[c] is positive.
  public typealias AddSigns =
    @convention(c) (_ row: ConstantFloats, _ columns: Int, _ bit: Int, _ words: UnsafeMutablePointer<UInt64>) -> Void
  /// out[r] += sum over i < count of +-values[i], lanes, with + where bit i of row r is set. `words` is [ceil(count /
  /// signsPerWord), wordStride], `tables` scratch for 12 * 32 lanes, `out` [rows] lanes.
  public typealias Sums =
    @convention(c) (
      _ values: ConstantFloats, _ valueStride: Int, _ count: Int, _ words: UnsafePointer<UInt64>, _ wordStride: Int,
      _ rows: Int, _ tables: Floats, _ out: Floats
    ) -> Void
  /// out = values where codes > 0, else 0, lanes in rows; adds the columns' sums to `sums`, lanes.
  public typealias MaskAndSum =
    @convention(c) (
      _ values: ConstantFloats, _ valueStride: Int, _ codes: ConstantFloats, _ codeStride: Int, _ rows: Int, _ out: Floats,
      _ outStride: Int, _ sums: Floats
    ) -> Void

  public var words: Words
  public var addSigns: AddSigns
  public var sums: Sums
  public var maskAndSum: MaskAndSum

  public init(
    words: @escaping Words, addSigns: @escaping AddSigns, sums: @escaping Sums, maskAndSum: @escaping MaskAndSum
  ) {
    self.words = words
    self.addSigns = addSigns
    self.sums = sums
    self.maskAndSum = maskAndSum
  }
}
