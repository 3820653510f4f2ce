/// Activations of each type that users have, to standardised float32.
public struct StandardizationKernels: @unchecked Sendable {
  /// out = (x - mean) * inverseScale of `count` adjacent elements, any number; false if one of them is not finite.
  public typealias Standardize =
    @convention(c) (
      _ source: UnsafeRawPointer, _ count: Int, _ mean: ConstantFloats, _ inverseScale: ConstantFloats, _ out: Floats
    ) -> Bool

  public var float32: Standardize
  public var float16: Standardize
  public var float64: Standardize
  public var bfloat16: Standardize

  public init(
    float32: @escaping Standardize, float16: @escaping Standardize, float64: @escaping Standardize,
    bfloat16: @escaping Standardize
  ) {
    self.float32 = float32
    self.float16 = float16
    self.float64 = float64
    self.bfloat16 = bfloat16
  }
}
