/// Sixteen rows that stand side by side in lanes of 16 floats, and back.
public struct TransposeKernels: @unchecked Sendable {
  /// Sixteen rows, each times its scale, to lanes: out [columns] lanes.
  public typealias Rows =
    @convention(c) (_ rows: ConstantFloats, _ stride: Int, _ scales: ConstantFloats, _ columns: Int, _ out: Floats) -> Void
  /// Lanes [columns] to sixteen rows.
  public typealias Lanes =
    @convention(c) (_ values: ConstantFloats, _ valueStride: Int, _ columns: Int, _ out: Floats, _ outStride: Int) -> Void
  /// Sixteen rows += a * transposed lanes [columns]; `scratch` [256].
  public typealias AddLanes =
    @convention(c) (
      _ values: ConstantFloats, _ columns: Int, _ a: Float, _ out: Floats, _ outStride: Int, _ scratch: Floats
    ) -> Void

  public var rows: Rows
  public var lanes: Lanes
  public var addLanes: AddLanes

  public init(rows: @escaping Rows, lanes: @escaping Lanes, addLanes: @escaping AddLanes) {
    self.rows = rows
    self.lanes = lanes
    self.addLanes = addLanes
  }
}
