/// Sums and dot products of rows.
public struct RowKernels: @unchecked Sendable {
  /// out = sum over q < count of coefficients[q] * rows[indices[q]].
  public typealias WeightedSum =
    @convention(c) (
      _ rows: ConstantFloats, _ stride: Int, _ indices: UnsafePointer<Int32>, _ coefficients: ConstantFloats, _ count: Int,
      _ columns: Int, _ out: Floats
    ) -> Void
  /// out[q] = vector . rows[indices[q]], q < count.
  public typealias Dots =
    @convention(c) (
      _ vector: ConstantFloats, _ rows: ConstantFloats, _ stride: Int, _ indices: UnsafePointer<Int32>, _ count: Int,
      _ columns: Int, _ out: Floats
    ) -> Void
  /// a . b.
  public typealias Dot = @convention(c) (_ a: ConstantFloats, _ b: ConstantFloats, _ columns: Int) -> Float
  /// y += a * x.
  public typealias AddScaled = @convention(c) (_ a: Float, _ x: ConstantFloats, _ columns: Int, _ y: Floats) -> Void
  /// y = x - y.
  public typealias SubtractFrom = @convention(c) (_ x: ConstantFloats, _ columns: Int, _ y: Floats) -> Void

  public var weightedSum: WeightedSum
  public var dots: Dots
  public var dot: Dot
  public var addScaled: AddScaled
  public var subtractFrom: SubtractFrom

  public init(
    weightedSum: @escaping WeightedSum, dots: @escaping Dots, dot: @escaping Dot, addScaled: @escaping AddScaled,
    subtractFrom: @escaping SubtractFrom
  ) {
    self.weightedSum = weightedSum
    self.dots = dots
    self.dot = dot
    self.addScaled = addScaled
    self.subtractFrom = subtractFrom
  }
}
