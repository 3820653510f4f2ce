public typealias Floats = UnsafeMutablePointer<Float>
public typealias ConstantFloats = UnsafePointer<Float>

/// The hot loops for one instruction set, by subject.
///
/// Row lengths called `columns` are multiples of 16: rows are padded with zeros, so no kernel has a tail to handle. (Kernels of
/// signs take any number of columns, since padding has no sign.) Distances between rows are in elements and are called strides.
/// `Reference.swift` in the tests computes in plain loops what each kernel computes.
public struct KernelTable: @unchecked Sendable {
  public var name: StaticString
  public var product: ProductKernels
  public var screening: ScreeningKernels
  public var selection: SelectionKernels
  public var rows: RowKernels
  public var standardize: StandardizationKernels
  public var training: TrainingKernels
  public var signs: SignKernels
  public var skipping: SkippingKernels
  public var transpose: TransposeKernels
  public var fourier: FourierKernels
  public var images: ImageKernels

  public init(
    name: StaticString, product: ProductKernels, screening: ScreeningKernels, selection: SelectionKernels, rows: RowKernels,
    standardize: StandardizationKernels, training: TrainingKernels, signs: SignKernels, skipping: SkippingKernels,
    transpose: TransposeKernels, fourier: FourierKernels, images: ImageKernels
  ) {
    self.name = name
    self.product = product
    self.screening = screening
    self.selection = selection
    self.rows = rows
    self.standardize = standardize
    self.training = training
    self.signs = signs
    self.skipping = skipping
    self.transpose = transpose
    self.fourier = fourier
    self.images = images
  }
}
