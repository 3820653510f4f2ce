/// Products with a matrix of which many elements are 0.
public struct SkippingKernels: @unchecked Sendable {
  /// Elements of a row that one call takes.
  public static let depth = 32

  /// out[r] += sum over i < 32 of values[r][i] * panel[i], skipping zeros; `panel` is [32, columns], at most `width` columns.
  public typealias Add =
    @convention(c) (
      _ values: ConstantFloats, _ valueStride: Int, _ rows: Int, _ panel: ConstantFloats, _ columns: Int, _ out: Floats,
      _ outStride: Int
    ) -> Void
  /// Copies adjacent columns of a matrix, each row times its scale if there is one: out [rows, columns].
  public typealias PackColumns =
    @convention(c) (
      _ firstColumn: ConstantFloats, _ stride: Int, _ rows: Int, _ scales: ConstantFloats?, _ columns: Int, _ out: Floats
    ) -> Void
  /// out = row where positive, else 0, in pieces of 32 that lie `pieceStride` apart, the last filled up with 0; returns how
  /// many are positive.
  public typealias Rectify =
    @convention(c) (_ row: ConstantFloats, _ columns: Int, _ out: Floats, _ pieceStride: Int) -> Int

  /// Columns of a panel.
  public var width: Int
  public var add: Add
  public var packColumns: PackColumns
  public var rectify: Rectify

  public init(width: Int, add: @escaping Add, packColumns: @escaping PackColumns, rectify: @escaping Rectify) {
    self.width = width
    self.add = add
    self.packColumns = packColumns
    self.rectify = rectify
  }
}
